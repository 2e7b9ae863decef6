"""Five crops of each image, cut on the fly or beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from omh_mmseg.datasets.base import run_pipeline
from omh_mmseg.datasets.five_crop.stored import COMMAND, CROPS, StoredCrops
from omh_mmseg.datasets.transforms import FiveCropPatch
from omh_mmseg.datasets.wrapper import DatasetWrapper, positive_index
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.checks import ranges
from omh_mmseg.utils.commands import suggested_command


@DATASETS.register_module()
class FiveCrop(DatasetWrapper):
    """Each image five times: its four corners and its centre (docs/methods/data.md 5.7).

    Item ``5 * image + j`` is crop ``j`` of top-left, top-right, bottom-left, bottom-right, centre. The crop is cut from
    the full-resolution image by :class:`FiveCropPatch`, which must stand in the wrapped pipeline after the loading.

    STEGO and HP cut beforehand and store JPEGs, so that their images are compressed twice, which is part of the
    published numbers. ``stored`` reads such a folder, made by ``tools/prepare.py five-crop`` or by STEGO's own script.
    Pipeline and classes are those of the wrapped data set; its images are not looked at and need not be on disk.

    Args:
        dataset: The wrapped data set, built or as a config.
        ratio: Side of a crop relative to the image, in (0, 1].
        stored: Folder of crops with ``img/<split>/<k>.jpg`` and ``label/<split>/<k>.png``; None to cut on the fly.
        stored_split: The split's name in that folder.
        lazy_init: Leave :meth:`full_init` to the first access.

    Raises:
        FileNotFoundError: Crops of the stored folder are missing; the message holds the command that makes them.
        ValueError: The stored folder is incomplete or was made with another ratio or other classes.
    """

    @ranges(ratio='(0, 1]')
    def __init__(
        self,
        dataset: BaseDataset | dict,
        ratio: float = 0.5,
        stored: str | None = None,
        stored_split: str = 'train',
        lazy_init: bool = False,
    ) -> None:
        self.ratio = ratio
        self.stored = stored
        self.stored_split = stored_split
        self.crops: StoredCrops | None = None
        if stored is not None:
            self.data_root = stored
            if isinstance(dataset, dict):
                dataset = DATASETS.build({**dataset, 'lazy_init': True})
        super().__init__(dataset, lazy_init)
        pipeline = getattr(self.dataset, 'pipeline', None)
        if not any(isinstance(transform, FiveCropPatch) for transform in getattr(pipeline, 'transforms', [])):
            raise ValueError(
                "FiveCrop needs dict(type='FiveCropPatch') in the pipeline of the data set that it wraps, right after "
                'the loading of image and label; without it every item would be the whole image'
            )

    @property
    def uses_wrapped_images(self) -> bool:
        """False for crops that are stored."""
        return self.stored is None

    def _after_init(self) -> None:
        if self.stored is None:
            return
        if getattr(self.dataset, '_indices', None) is not None:
            raise ValueError(
                f'stored={self.stored!r} takes all crops of that folder; remove `indices` of the wrapped data set, or '
                'prepare a folder with those images alone'
            )
        classes = self.metainfo.get('classes') or ()
        labels = getattr(self.dataset, 'labels', None) != 'none'
        self.crops = StoredCrops.open(Path(self.stored), self.stored_split, self.ratio, classes, labels)
        label_map = getattr(self.dataset, 'label_map', None)
        if self.crops.labels and self.crops.source == 'unknown' and label_map:
            raise ValueError(
                f'the labels in {self.stored} hold the classes of the whole data set, but the config chooses '
                f'{len(classes)} of them; remove metainfo.classes, or prepare a folder for them with\n'
                f'    {suggested_command(COMMAND, "--out", "FOLDER")}'
            )
        self._from_file = {number + 1: number for number in range(len(classes))} | {0: IGNORED_LABEL}

    def get_data_info(self, idx: int) -> dict:
        """Description of the item, with ``crop_number`` (0..4), ``crop_ratio`` and, where stored, ``crop_stored``."""
        idx = positive_index(idx, len(self))
        image, crop = divmod(idx, CROPS)
        info = self.dataset.get_data_info(image) if self.crops is None else self._stored_info(self.crops, idx)
        info.update(crop_number=crop, crop_ratio=self.ratio, sample_idx=idx)
        return info

    def _stored_info(self, crops: StoredCrops, idx: int) -> dict:
        image, label = crops.paths(idx)
        info: dict[str, Any] = dict(
            img_path=image,
            crop_stored=True,
            label_map=self._from_file,
            reduce_zero_label=False,
            ignore_index=IGNORED_LABEL,
            num_classes=len(self._from_file) - 1,
            seg_fields=[],
        )
        return info if label is None else info | dict(seg_map_path=label)

    def __getitem__(self, idx: int) -> Any:
        return run_pipeline(self.dataset.pipeline, self.get_data_info(idx))

    def __len__(self) -> int:
        self.full_init()
        return CROPS * len(self.dataset) if self.crops is None else self.crops.crops

    def __repr__(self) -> str:
        stored = f', stored crops of {self.crops.source}' if self.crops is not None else ''
        return f'{type(self).__name__}(ratio={self.ratio}{stored})'
