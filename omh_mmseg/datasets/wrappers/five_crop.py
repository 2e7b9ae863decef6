"""Five crops of each image, cut on the fly."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import BaseDataset

from omh_mmseg.datasets.base import run_pipeline
from omh_mmseg.datasets.transforms import FiveCropPatch
from omh_mmseg.datasets.wrappers.base import DatasetWrapper, positive_index
from omh_mmseg.registry import DATASETS

CROPS = 5


@DATASETS.register_module()
class FiveCrop(DatasetWrapper):
    """Each image five times: its four corners and its centre (METHODS.md 5.7).

    Item ``5 * image + j`` is crop ``j`` of top-left, top-right, bottom-left, bottom-right, centre. The crop is cut from
    the full-resolution image by :class:`FiveCropPatch`, which must stand in the wrapped pipeline after the loading.
    STEGO and HP cut beforehand and store JPEGs; here nothing is stored and nothing is compressed again.

    Args:
        dataset: The wrapped data set, built or as a config.
        ratio: Side of a crop relative to the image, in (0, 1].
        lazy_init: Leave :meth:`full_init` to the first access.
    """

    def __init__(self, dataset: BaseDataset | dict, ratio: float = 0.5, lazy_init: bool = False) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f'ratio must lie in (0, 1], got {ratio}')
        self.ratio = ratio
        super().__init__(dataset, lazy_init)
        pipeline = getattr(self.dataset, 'pipeline', None)
        if not any(isinstance(transform, FiveCropPatch) for transform in getattr(pipeline, 'transforms', [])):
            raise ValueError(
                "FiveCrop needs dict(type='FiveCropPatch') in the pipeline of the data set that it wraps, right after "
                'the loading of image and label; without it every item would be the whole image'
            )

    def get_data_info(self, idx: int) -> dict:
        """Description of the image, with ``crop_number`` (0..4) and ``crop_ratio``."""
        image, crop = divmod(positive_index(idx, len(self)), CROPS)
        info = self.dataset.get_data_info(image)
        info.update(crop_number=crop, crop_ratio=self.ratio, sample_idx=CROPS * image + crop)
        return info

    def __getitem__(self, idx: int) -> Any:
        return run_pipeline(self.dataset.pipeline, self.get_data_info(idx))

    def __len__(self) -> int:
        return CROPS * super().__len__()

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ratio={self.ratio})'
