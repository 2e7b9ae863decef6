"""Test-time augmentation that averages codes, for ``--tta``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.registry import MODELS

AXES = dict(horizontal=(-1,), vertical=(-2,), diagonal=(-2, -1))


@MODELS.register_module()
class CodeAveragingTTA(BaseTTAModel):
    """Average the codes of several views of an image and predict from the average (docs/methods/evaluation.md 6.3).

    For pipelines with ``TestTimeAug`` whose views differ by flips (``RandomFlip`` of probability 0 or 1) and sizes.
    Each view's code is turned back and brought to the grid of the first view that is not flipped; labels and image are
    that view's. Two views, one of them flipped horizontally, give what ``test_cfg=dict(flip=True)`` gives.

    Args:
        module: Config of the segmentor, or the segmentor; mmseg's ``test.py --tta`` puts the config's model here.
    """

    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        """Predict a batch of augmented images.

        Args:
            data: ``inputs`` and ``data_samples``, each with one list per view, of one entry per image.

        Returns:
            One sample per image, as from the segmentor's ``predict``.

        Raises:
            ValueError: The pipeline has no ``TestTimeAug``, or flips every view.
        """
        if not isinstance(data['inputs'][0], (list, tuple)):
            raise ValueError("CodeAveragingTTA needs a pipeline with dict(type='TestTimeAug'), such as tta_pipeline.")
        views = [dict(inputs=images, data_samples=list(s)) for images, s in zip(data['inputs'], data['data_samples'])]
        # Views are encoded as flipped copies of padded images, so that all codes lie on one grid.
        flips = [[_axes(sample) for sample in view['data_samples']] for view in views]
        straight = [index for index, axes in enumerate(flips) if not any(axes)]
        if not straight:
            raise ValueError('every view of the TestTimeAug is flipped; add one without, RandomFlip with prob=0.')
        order = [straight[0], *(index for index in range(len(views)) if index != straight[0])]
        total: Tensor | None = None
        for index in order:
            images = [image.flip(axes) for image, axes in zip(views[index]['inputs'], flips[index])]
            view = self.module.data_preprocessor(dict(views[index], inputs=images), False)
            inputs, samples = view['inputs'], view['data_samples']
            turned = torch.stack([image.flip(axes) for image, axes in zip(inputs, flips[index])])
            code = self.module.prediction_code(turned)
            code = torch.stack([one.flip(axes) for one, axes in zip(code, flips[index])])
            if total is None:
                total, first = code, (inputs, samples)
            else:
                total = total + self._on_grid(code, samples[0], inputs, total, *first)
        assert total is not None
        return self.module.predict_from_code(total / len(views), *first)

    def merge_preds(self, data_samples_list: list[Any]) -> list[SegDataSample]:
        """Not how this class works.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError('CodeAveragingTTA merges codes before the prediction; call test_step.')

    def _on_grid(
        self,
        code: Tensor,
        sample: SegDataSample,
        inputs: Tensor,
        like: Tensor,
        reference: Tensor,
        references: list[SegDataSample],
    ) -> Tensor:
        """A view's code at the positions of the reference's code; both images may be padded at the right and bottom."""
        if inputs.shape == reference.shape and code.shape == like.shape:
            return code
        grids = []
        for axis in (-2, -1):
            side = sample.metainfo.get('img_shape', inputs.shape[-2:])[axis]
            whole = references[0].metainfo.get('img_shape', reference.shape[-2:])[axis]
            cells = like.shape[axis]
            centres = (torch.arange(cells, device=code.device, dtype=code.dtype) + 0.5) * reference.shape[axis] / cells
            grids.append(centres * (side / whole) * 2 / inputs.shape[axis] - 1)
        rows, columns = torch.meshgrid(*grids, indexing='ij')
        grid = torch.stack([columns, rows], -1).expand(len(code), -1, -1, -1)
        return F.grid_sample(code, grid, mode='bilinear', padding_mode='border', align_corners=False)


def _axes(sample: SegDataSample) -> tuple[int, ...]:
    return AXES[sample.metainfo.get('flip_direction') or 'horizontal'] if sample.metainfo.get('flip') else ()
