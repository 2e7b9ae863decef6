"""What all unsupervised segmentors share: they build frozen features, code, probes and OMH, and train them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.losses.temporal_consistency_loss import stacked_flow
from omh_mmseg.models.omh.gradient_shares import GradientShares, gradient_figures
from omh_mmseg.models.prediction.cluster_assignment import ClusterAssignment
from omh_mmseg.models.prediction.cluster_bias import ClusterBias, clusterings
from omh_mmseg.models.prediction.options import PredictionOptions
from omh_mmseg.models.prediction.predicting_segmentor import PredictingSegmentor
from omh_mmseg.models.utils.photometric_view import PhotometricView
from omh_mmseg.models.utils.step_counter import StepCounter
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, Inputs, pixels
from omh_mmseg.structures.host_step import HostStep
from omh_mmseg.structures.labels import stacked_labels
from omh_mmseg.structures.temporal import LATER
from omh_mmseg.utils.checks import SIZE, STEPS, ranges


class UnsupervisedSegmentor(PredictingSegmentor):
    """Base of the hosts; a host implements ``host_losses`` and, for what follows the losses, ``after_losses``.

    The flow of a step (docs/architecture.md): frozen backbone -> projection head -> code; the host's losses on features
    and code; both probes on the detached code; OMH on the code itself. How it predicts is `PredictingSegmentor`'s.

    Args:
        num_classes: K, the number of classes and of clusters of the probe and of OMH's level 1.
        backbone: Config of the frozen backbone.
        decode_head: Config of the projection head; ``in_channels`` (of the backbone) and ``num_classes`` are filled in.
        cluster_probe: Config of the cluster probe; ``in_channels`` and ``num_classes`` are filled in.
        linear_probe: Config of the linear probe, likewise; None leaves it out.
        omh_head: Config of `OMHHead`, likewise; None switches OMH off.
        temporal: Config of `TemporalConsistencyLoss`, for data sets of frames; None leaves it out.
        data_preprocessor: See mmengine.
        gradient_log_interval: Every so many steps the norms of each OMH loss's gradient on the code, relative to the
            host's, and their cosines with it are logged; 0 never.
        test_cfg: How to predict, see `PredictionOptions`. ``assignment``: the classes of the clusters, set by
            hand, see `ClusterAssignment`.
        train_cfg: Unused; mmseg's tools set it.
        pretrained: Must be None; mmseg's tools set it.
        init_cfg: See mmengine.

    Raises:
        ValueError: On wrong values in ``test_cfg``, sizes of a part that contradict those filled in, weights given by
            ``pretrained``, or a part that would learn nothing, as OMH's losses where the code is frozen.
    """

    PART_DEFAULTS: ClassVar[dict[str, Any]] = dict(test_cfg=dict(type=PredictionOptions))
    TEACHES_CODE: ClassVar[bool] = True
    """Whether the host's losses teach the projection head, which is frozen otherwise."""
    PROBE_METHODS: ClassVar[tuple[str, ...]] = ()
    """What the host calls on its cluster probe beside what all probes have."""

    @ranges(num_classes=SIZE, gradient_log_interval=STEPS)
    def __init__(
        self,
        num_classes: int,
        backbone: dict[str, Any],
        decode_head: dict[str, Any],
        cluster_probe: dict[str, Any],
        linear_probe: dict[str, Any] | None = None,
        omh_head: dict[str, Any] | None = None,
        temporal: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        gradient_log_interval: int = 50,
        test_cfg: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        pretrained: None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if pretrained is not None:
            raise ValueError(f'pretrained must be None; got {pretrained!r}. Set model.backbone.checkpoint instead.')
        self.num_classes = num_classes
        self.gradient_log_interval = gradient_log_interval
        self.backbone = MODELS.build(backbone)
        self.decode_head = _build('decode_head', decode_head, self.backbone.out_channels, num_classes)
        if self.TEACHES_CODE and next(self.decode_head.parameters(), None) is None:
            raise ValueError(
                f'the losses of {type(self).__name__} teach the code, and model.decode_head='
                f"{type(self.decode_head).__name__} has nothing to learn. Set another, such as type='ProjectionHead'."
            )
        channels = self.decode_head.channels
        self.cluster_probe = _build('cluster_probe', cluster_probe, channels, num_classes)
        self._check_probe()
        self.linear_probe = _build('linear_probe', linear_probe, channels, num_classes)
        self.omh_head = _build('omh_head', omh_head, channels, num_classes)
        # A host that compares with the images in another light sets it.
        self.photometric_view: PhotometricView | None = None
        self.temporal = None if temporal is None else MODELS.build(temporal)
        self.use_test_cfg(test_cfg or {})
        fields = {field: len(centres) for field, centres in clusterings(self).items()}
        self.cluster_bias = ClusterBias(fields)
        self.assignment = ClusterAssignment(fields, self.test_cfg.get('assignment'))
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))
        self._step_counter = StepCounter()
        if not self.TEACHES_CODE:
            self._freeze_code()

    def _freeze_code(self) -> None:
        """Train no part of the code: the projection head stays as it is, without its dropout."""
        if self.temporal is not None:
            raise ValueError(
                f'the temporal term teaches the code, which is frozen in {type(self).__name__}: it would reach '
                'nothing. Set model.temporal=None'
            )
        self.decode_head.requires_grad_(False)
        head = self.omh_head
        losses = head is not None and (head.match is not None or head.cluster is not None)
        if losses and (head.reach.scales_gradients or not head.rule.joint):
            raise ValueError(
                'the losses of OMH reach the features, which are frozen here: set omh_head.match=None and cluster=None,'
                " or let them move centres, with centres=dict(type='JointCentres') and reach=dict(type='FixedWeight')."
            )

    def _check_probe(self) -> None:
        """Refuse a cluster probe that the host cannot train, or that learns from another host alone."""
        probe, host = type(self.cluster_probe).__name__, type(self).__name__
        lacking = [name for name in self.PROBE_METHODS if not hasattr(self.cluster_probe, name)]
        if lacking:
            raise ValueError(
                f'{host} cannot train the clusters of a {probe}, which has no {" and no ".join(lacking)}. Leave '
                f'model.cluster_probe.type as in the configs of {host}.'
            )
        trainer = getattr(self.cluster_probe, 'TRAINED_BY', None)
        if trainer is not None and trainer not in (kind.__name__ for kind in type(self).__mro__):
            raise ValueError(
                f'nothing of {host} trains a {probe}, which learns from {trainer}: what it predicts would stay random. '
                "Set model.cluster_probe=dict(_delete_=True, type='ClusterProbe')."
            )

    @property
    def first_steps(self) -> dict[str, int]:
        """By setting, the first training step in which something acts that begins later than the run."""
        temporal = {} if self.temporal is None else {'model.temporal.begin': self.temporal.begin}
        return temporal | getattr(self.cluster_probe, 'first_steps', {})

    def train(self, mode: bool = True) -> UnsupervisedSegmentor:
        """See torch; a frozen head stays as it predicts."""
        super().train(mode)
        self.decode_head.train(mode and self.TEACHES_CODE)
        return self

    @property
    def step(self) -> int:
        """Training steps made, as in the buffer ``iteration``; reading it does not wait for the device."""
        return self._step_counter.read(self.iteration)

    @torch.no_grad()
    def begin_run(self) -> None:
        """Forget what belongs to the run that the weights come from.

        The state of a run is what its schedule and its batches left in buffers beside what was learned: the steps, by
        which OMH's start and every ramp are timed, the classes that a validation found for the clusters, the bias that
        a closing refit gave them, and what the parts call theirs in their own ``begin_run``. Parameters and SmooSeg's
        teacher stay. A resumed run forgets nothing.
        """
        self.iteration.zero_()
        self.assignment.forget()
        self.cluster_bias.forget()
        if hasattr(self.cluster_probe, 'begin_run'):
            self.cluster_probe.begin_run()
        if self.omh_head is not None:
            self.omh_head.plan.begin_run()
            self.omh_head.rule.begin_run()

    @abstractmethod
    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> HostStep:
        """The host's losses of one batch.

        Args:
            inputs: Normalised views (B, 3, H, W), by name where there are several, or what is frozen of them.
        """

    def after_losses(self) -> None:
        """What a host does once all losses of a step are computed, before their gradients and the optimiser's step."""

    def share_prototypes_with_omh(self) -> None:
        """Make OMH's level 1 a copy of the cluster probe's centres.

        Raises:
            ValueError: There is no other level.
        """
        if len(self.omh_head.level_sizes) == 1:
            raise ValueError(
                "share_prototypes=True makes OMH's level 1 follow the host's prototypes: with one level no centre "
                'learns, and omh_head.centres reaches nothing. Set omh_head.num_levels to 2 or more, or '
                'share_prototypes=False.'
            )
        self.omh_head.follow_coarsest(self.cluster_probe.centres)

    def loss(self, inputs: Inputs | dict[str, Inputs], data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Named losses and figures of one training step.

        Args:
            inputs: See `host_losses`.
            data_samples: One per image; labels, where present, train the linear probe only. Without any, its loss is 0:
                left out, it would stop distributed training, which waits for the gradient of every parameter.
        """
        if self.omh_head is not None:
            self.omh_head.begin_step()
        inputs, later = self._without_later(inputs)
        losses, codes, code = self.host_losses(inputs)
        host = torch.stack(list(losses.values())).sum()
        losses.update(self.cluster_probe.loss(code))
        if self.linear_probe is not None:
            losses.update(self.linear_probe.loss(code, stacked_labels(data_samples, code)))
        if self.omh_head is not None:
            shares = GradientShares(codes) if self.omh_head.needs_shares(self.step) else None
            added = self.omh_head.loss(code, self.step, shares)
            losses.update(added)
            # A host may learn on a code that is frozen.
            logged = self.gradient_log_interval and self.step % self.gradient_log_interval == 0
            if logged and codes.requires_grad:
                losses.update(gradient_figures(host, added, codes))
        if later is not None:
            losses.update(self._temporal_losses(code, later, data_samples))
        self.after_losses()
        self._step_counter.advance(self.iteration)
        return losses

    def _without_later(
        self, inputs: Inputs | dict[str, Inputs]
    ) -> tuple[Inputs | dict[str, Inputs], Inputs | None]:
        """What the host sees of a batch, and the later frames where the temporal term takes part in this step."""
        views = dict(inputs) if isinstance(inputs, dict) else {}
        later = views.pop(LATER, None)
        if (later is None) != (self.temporal is None):
            raise ValueError(
                'model.temporal needs pairs of frames, and the batch has none: train with '
                "default_hooks.temporal_pairs=dict(type='TemporalPairsHook'), or wrap the train data set in "
                "dict(type='TemporalPairs', ...)."
                if later is None
                else 'the batch has later frames, which reach nothing without model.temporal. Set '
                "model.temporal=dict(type='TemporalConsistencyLoss'), or take TemporalPairs off the train data set."
            )
        if later is None or self.temporal is None:
            return inputs, None
        rest = views['anchor'] if len(views) == 1 else views
        return rest, later if self.step >= self.temporal.begin else None

    def _temporal_losses(self, code: Tensor, later: Inputs, samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        assert self.temporal is not None
        with torch.no_grad():
            later_code = self.decode_head(self.extract_feat(later))
        image = (int(later.shape[-2]), int(later.shape[-1]))
        flow, shown = stacked_flow(samples, image, (int(code.shape[-2]), int(code.shape[-1])), code.device)
        return self.temporal(code, later_code, clusterings(self), flow, shown)

    @property
    def frozen_fields(self) -> dict[str, str]:
        """What training needs of the frozen part, each with the settings that it depends on beside the backbone."""
        return dict(features='')

    @property
    def frozen_types(self) -> dict[str, torch.dtype]:
        """Types of those of the `frozen_fields` that are not kept in the type of the features."""
        return {}

    @property
    def trains_on_images(self) -> bool:
        """Whether a training step needs the images beside what is frozen of them, unless their views are cached."""
        return self.jitter_settings is not None

    @property
    def jitter_settings(self) -> str | None:
        """What `jittered` depends on beside the draws; None where training compares with no jittered view."""
        return None if self.photometric_view is None else self.photometric_view.settings

    def jittered(self, images: Tensor) -> Tensor:
        """A view (B, 3, H, W) of normalised images by the host's ``photometric_view``, drawn by torch's generator.

        Raises:
            NotImplementedError: Training compares with no such view.
        """
        if self.photometric_view is None:
            raise NotImplementedError(f'{type(self).__name__} trains on no jittered view')
        preprocessor = self.data_preprocessor
        return self.photometric_view(images, getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None))

    def other_view(self, images: Inputs) -> Inputs:
        """The images in another light, or the features of what the cache holds of them in another light."""
        if isinstance(images, FrozenInputs) and images.view is not None:
            return FrozenInputs(images.view, images.size)
        return self.jittered(pixels(images))

    def freeze(self, images: Tensor) -> FrozenInputs:
        """The `frozen_fields` of normalised images (B, 3, H, W), which stand for them from then on."""
        return FrozenInputs(self.backbone(images), size=(images.shape[-2], images.shape[-1]))

    def extract_feat(self, inputs: Inputs) -> Tensor:
        """Frozen features (B, C, h, w) of normalised images (B, 3, H, W)."""
        known = inputs.features if isinstance(inputs, FrozenInputs) else None
        return self.backbone(pixels(inputs)) if known is None else known

    def encode(self, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.decode_head(self.extract_feat(inputs))


def _build(name: str, config: dict[str, Any] | None, in_channels: int, num_classes: int) -> Any:
    """A part of the model whose sizes are filled in; None without a config."""
    if config is None:
        return None
    sizes = dict(in_channels=in_channels, num_classes=num_classes)
    for key, size in sizes.items():
        if config.get(key, size) != size:
            source = 'model.num_classes' if key == 'num_classes' else 'what it takes in'
            raise ValueError(
                f'model.{name}.{key}={config[key]!r} would reach nothing: it follows from {source} and is {size}. '
                'Leave it out' + (', and set model.num_classes.' if key == 'num_classes' else '.')
            )
    return MODELS.build({**config, **sizes})
