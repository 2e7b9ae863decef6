"""COCO-Stuff merged to 27 classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omh_mmseg.datasets.base import FileSegDataset, data_item, first_few, numbered_palette
from omh_mmseg.registry import DATASETS

# Raw value 0..181 of the stuff-thing maps -> class, METHODS.md B.1.
RAW_TO_27 = (
    9, 11, 11, 11, 11, 11, 11, 11, 11, 8, 8, 8, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    6, 6, 6, 6, 6, 6, 6, 6, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5, 5,
    5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0,
    0, 0, 1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4, 4, 4, 17, 17, 22, 20, 20, 22, 15, 25, 16,
    13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25, 13, 13, 13, 13, 13, 22, 26, 14, 14, 15, 22, 21,
    21, 24, 20, 22, 15, 17, 16, 15, 22, 24, 21, 17, 25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21, 24,
    20, 17, 14, 21, 26, 15, 23, 20, 21, 24, 15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18,
    18, 18, 26, 26, 19, 19, 24,
)  # fmt: skip
# Raw values that no image uses; mmseg's prepared labels number the other 171 consecutively.
UNUSED_RAW = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
USED_RAW = tuple(raw for raw in range(len(RAW_TO_27)) if raw not in UNUSED_RAW)
IGNORE = 255

CLASSES = (
    'electronic', 'appliance', 'food-thing', 'furniture-thing', 'indoor', 'kitchen', 'accessory', 'animal', 'outdoor',
    'person', 'sports', 'vehicle', 'ceiling', 'floor', 'food-stuff', 'furniture-stuff', 'rawmaterial', 'textile',
    'wall', 'window', 'building', 'ground', 'plant', 'sky', 'solid', 'structural', 'water',
)  # fmt: skip

LAYOUTS = {
    'stego': dict(
        images='cocostuff/images/{split}',
        labels='cocostuff/annotations/{split}',
        lists='cocostuff/curated/{split}',
        suffix='.png',
    ),
    'mmseg': dict(
        images='images/{split}',
        labels='annotations/{split}',
        lists='curated/{split}',
        suffix='_labelTrainIds.png',
    ),
}


@DATASETS.register_module()
class COCOStuff27(FileSegDataset):
    """COCO-Stuff with the 27 classes of unsupervised segmentation, 12 of things and 15 of stuff (METHODS.md B.1).

    Two layouts on disk::

        stego   cocostuff/images/<split>/<id>.jpg, cocostuff/annotations/<split>/<id>.png (raw values 0..181, 255),
                cocostuff/curated/<split>/<list>.txt
        mmseg   images/<split>/<id>.jpg, annotations/<split>/<id>_labelTrainIds.png (values 0..170, 255, made by mmseg's
                tools/dataset_converters/coco_stuff164k.py), curated/<split>/<list>.txt (copy STEGO's lists there)

    Only the listed images are looked at. The literature trains on ``Coco164kFull_Stuff_Coarse.txt`` (97,702 images of
    train2017) and scores on ``Coco164kFull_Stuff_Coarse_7.txt`` of val2017 (METHODS.md 5.2).

    Args:
        data_root: The folder above those.
        layout: ``'stego'`` or ``'mmseg'``.
        split: ``'train2017'`` or ``'val2017'``.
        ann_file: List of ids, one per line: a name in the layout's folder of lists, or an absolute path. Empty: every
            image of the split.
        labels: ``'required'``, or ``'none'`` to train without labels (no scores then).
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset` (``pipeline``, ``metainfo``, ``indices``, ...).

    Raises:
        FileNotFoundError: A folder, the list, a listed image or its label is missing; the message says what was looked
            for and where.
        ValueError: Unknown layout, or an empty list.
    """

    METAINFO = dict(classes=CLASSES, palette=numbered_palette(len(CLASSES)))

    def __init__(
        self,
        data_root: str = 'data/',
        layout: str = 'stego',
        split: str = 'train2017',
        ann_file: str = '',
        labels: str = 'required',
        **kwargs: Any,
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f'layout={layout!r} is unknown; choose one of {sorted(LAYOUTS)}')
        if labels not in ('required', 'none'):
            raise ValueError(f"labels={labels!r} is unknown; choose 'required' or 'none'")
        self.layout, self.split, self.labels = layout, split, labels
        folders = {key: value.format(split=split) for key, value in LAYOUTS[layout].items()}
        if ann_file and not os.path.isabs(ann_file):
            ann_file = os.path.join(folders['lists'], ann_file)
        super().__init__(
            data_root=str(data_root),
            data_prefix=dict(img_path=folders['images'], seg_map_path=folders['labels']),
            ann_file=ann_file,
            seg_map_suffix=folders['suffix'],
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """The listed images with their labels, in the order of the list.

        Returns:
            One dict per image with ``img_path`` and, unless ``labels='none'``, ``seg_map_path``.
        """
        images = self._listing('img_path', self.img_suffix, 'images')
        ids = self._ids(images)
        labels: dict[str, str] = {}
        if self.labels == 'required':
            labels = self._listing('seg_map_path', self.seg_map_suffix, 'labels')
            absent = [name for name in ids if name not in labels]
            if absent:
                raise FileNotFoundError(
                    f'{len(absent)} of {len(ids)} images have no label <id>{self.seg_map_suffix} in '
                    f'{self.data_prefix["seg_map_path"]}: {first_few(absent)}. {self._layout_hint()}'
                )
        return [data_item(images[name], labels.get(name)) for name in ids]

    def _value_map(self) -> dict[int, int]:
        """Value on disk -> class, through the 27 classes and then the classes that the config chose."""
        raw = range(len(RAW_TO_27)) if self.layout == 'stego' else USED_RAW
        chosen = self.label_map or {index: index for index in range(len(CLASSES))}
        return {value: chosen[RAW_TO_27[number]] for value, number in enumerate(raw)} | {IGNORE: IGNORE}

    def _listing(self, prefix: str, suffix: str, what: str) -> dict[str, str]:
        """Paths of a folder by id."""
        folder = self.data_prefix[prefix]
        if not os.path.isdir(folder):
            raise FileNotFoundError(f'no folder of {what} {folder!r}. {self._layout_hint()}')
        with os.scandir(folder) as entries:
            return {
                entry.name[: -len(suffix)]: os.path.join(folder, entry.name)
                for entry in entries
                if entry.name.endswith(suffix)
            }

    def _ids(self, images: dict[str, str]) -> list[str]:
        if not self.ann_file:
            if not images:
                folder = self.data_prefix['img_path']
                raise FileNotFoundError(f'no {self.img_suffix} files in {folder!r}. {self._layout_hint()}')
            return sorted(images)
        if not os.path.isfile(self.ann_file):
            raise FileNotFoundError(
                f"no list of images {self.ann_file!r}; ann_file='' takes every image. {self._layout_hint()}"
            )
        lines = Path(self.ann_file).read_text(encoding='utf-8').splitlines()
        ids = [os.path.splitext(line.strip())[0] for line in lines if line.strip()]
        if not ids:
            raise ValueError(f'the list {self.ann_file} is empty')
        absent = [name for name in ids if name not in images]
        if absent:
            raise FileNotFoundError(
                f'{self.ann_file} lists {len(absent)} images (of {len(ids)}) that are not in '
                f'{self.data_prefix["img_path"]}: {first_few(absent)}'
            )
        return ids

    def _layout_hint(self) -> str:
        layout = LAYOUTS[self.layout]
        expected = ', '.join(layout[key].format(split=self.split) for key in ('images', 'labels', 'lists'))
        return (
            f"layout='{self.layout}' looks below data_root={self.data_root!r} for {expected} and labels "
            f'<id>{layout["suffix"]}; set data_root or layout (one of {sorted(LAYOUTS)})'
        )
