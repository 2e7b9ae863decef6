"""How a segmentor predicts: what mmengine, mmseg and our own commands ask of a model beside its training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.checkpoint_files import TRAINED_WITH
from omh_mmseg.models.prediction.predictor import Predictor
from omh_mmseg.models.prediction.provenance import describe_model
from omh_mmseg.models.utils.loaded_weights import file_of, fill_model
from omh_mmseg.structures.frozen_inputs import Inputs
from omh_mmseg.structures.provenance import compare_with_run
from omh_mmseg.utils.config import check_settings
from omh_mmseg.utils.digests import backbone_digest


class PredictingSegmentor(BaseSegmentor):
    """A segmentor whose predictions are a `Predictor`'s; what is built and trained is its subclass's.

    Weights that one of mmengine's loaders has read from a file must fill it, see `fill_model`, whoever loads them: the
    runner, mmseg's ``init_model`` or an inferencer. As soon as it has both its config and weights of a file, what the
    run of the weights was trained with is compared with the config, see `compare_with_run`.
    """

    _accepts_differences = False
    _config: Any = None
    _origin: tuple[str, Any] | None = None

    @property
    def cfg(self) -> Any:
        """The whole config, as mmengine's inferencers and mmseg's ``init_model`` set it.

        Raises:
            ValueError: When set, if the model or another part is out of date; see `check_settings`.
            ProvenanceError: When set, if the weights that were loaded are of a run with other settings.
        """
        if self._config is None:
            raise AttributeError('cfg')
        return self._config

    @cfg.setter
    def cfg(self, config: Any) -> None:
        check_settings(config)
        self._config = config
        self._compare_with_run()

    def use_test_cfg(self, test_cfg: Mapping[str, Any]) -> None:
        """Predict as a ``test_cfg`` says from now on.

        Raises:
            ImportError: See `Predictor`.
            ValueError: Likewise.
        """
        self.predictor = Predictor(test_cfg, self)
        self.test_cfg = dict(test_cfg)

    def val_step(self, data: dict[str, Any] | Sequence[Any]) -> list[SegDataSample]:
        """Segment a batch as a loader gives it, its images of any sizes; see `predict`.

        Images of one size go through the network together. Weights in half precision are computed with under autocast.
        """
        inputs = data.get('inputs') if isinstance(data, dict) else None
        sizes = [_size(image) for image in inputs] if isinstance(inputs, (list, tuple)) else []
        if not isinstance(data, dict) or len(set(sizes)) < 2:
            return self._segmented(data)
        segmented: dict[int, SegDataSample] = {}
        for size in dict.fromkeys(sizes):
            chosen = [index for index, other in enumerate(sizes) if other == size]
            part = {key: [values[index] for index in chosen] for key, values in data.items()}
            segmented |= zip(chosen, self._segmented(part))
        return [segmented[index] for index in range(len(sizes))]

    def test_step(self, data: dict[str, Any] | Sequence[Any]) -> list[SegDataSample]:
        """`val_step`; in a model whose ``cfg`` an inferencer has set, in classes where they are known.

        See `ClusterAssignment.in_classes`: ``inference_model`` and ``MMSegInferencer`` of mmseg take it from here.
        """
        samples = self.val_step(data)
        return samples if getattr(self, '_config', None) is None else list(self.assignment.in_classes(samples))

    def _segmented(self, data: Any) -> list[SegDataSample]:
        dtype = next(self.parameters()).dtype
        half = dtype in (torch.float16, torch.bfloat16)
        with torch.autocast(self.data_preprocessor.device.type, dtype) if half else nullcontext():
            return super().val_step(data)

    @abstractmethod
    def encode(self, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) of normalised images (B, 3, H, W)."""

    def encode_decode(self, inputs: Inputs, batch_data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Cosines with the cluster probe, and its bias where it has one, at the size of the input, (B, K, H, W)."""
        code = F.interpolate(self.encode(inputs), size=inputs.shape[-2:], mode='bilinear', align_corners=False)
        return self.cluster_bias.add('pred_sem_seg', self.cluster_probe(code))

    def _forward(self, inputs: Inputs, data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Cosines with the cluster probe, and its bias, on the code's grid, (B, K, h, w)."""
        return self.cluster_bias.add('pred_sem_seg', self.cluster_probe(self.encode(inputs)))

    def predict(self, inputs: Inputs, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Segment a batch; see `Predictor`.

        Args:
            inputs: Normalised images (B, 3, H, W), possibly padded at the right and bottom, or what is frozen of them.
            data_samples: Their metadata and, where present, labels.

        Returns:
            The samples with cluster numbers (1, h, w) in ``pred_sem_seg`` (cluster probe), ``pred_linear`` (classes;
            not of a run that never saw a label) and, with OMH, ``pred_level1``, ``pred_level2``, ...; once matched,
            with the classes of the clusters in their metadata, see `ClusterAssignment.annotate`.
        """
        samples = [SegDataSample() for _ in range(len(inputs))] if data_samples is None else list(data_samples)
        return self.predict_from_code(self.prediction_code(inputs), inputs, samples)

    def prediction_code(self, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) that predictions start from: with windows and flip averaging where ``test_cfg`` says so."""
        return self.predictor.code(self, inputs)

    def predict_from_code(self, code: Tensor, inputs: Inputs, samples: list[SegDataSample]) -> list[SegDataSample]:
        """`predict`, given the code (B, D, h, w) of the inputs."""
        return self.predictor.masks(self, code, inputs, samples)

    def note_run(self, name: str, record: Mapping[str, Any] | None, accept_differences: bool = False) -> None:
        """Say what run the loaded weights are of, before ``cfg`` is set; mmengine's loaders do so by themselves.

        Args:
            name: The checkpoint.
            record: See `omh_mmseg.structures.provenance.record_of`.
            accept_differences: Only warn of settings other than those of that run.
        """
        self._origin, self._accepts_differences = (name, record), accept_differences

    def _compare_with_run(self, state: Mapping[str, Any] | None = None) -> None:
        """Compare once; ``state`` are the weights, where they are about to be loaded."""
        if self._config is None or self._origin is None:
            return
        (name, record), self._origin = self._origin, None
        current = {} if record is None else describe_model(self, self._config, backbone_digest(state or {}))
        compare_with_run(name, record, current, accept=self._accepts_differences)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        if file_of(state_dict) is not None and not prefix:
            fill_model(self, state_dict)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        if TRAINED_WITH in local_metadata:
            self._origin = local_metadata[TRAINED_WITH]
            self._compare_with_run(state_dict)


def _size(image: Any) -> tuple[int, ...]:
    """Height and width of an image (3, H, W), or of what is frozen of it."""
    return tuple(image.shape[-2:]) if isinstance(image, Tensor) else tuple(image.size)
