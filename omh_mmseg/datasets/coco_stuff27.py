"""COCO-Stuff merged to 27 classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmseg.datasets import COCOStuffDataset

from omh_mmseg.datasets.base import numbered_palette
from omh_mmseg.datasets.layouts import Layout, LayoutSegDataset
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.structures.labels import IGNORED_LABEL

# Raw value 0..181 of the stuff-thing maps -> class, docs/methods/data.md B.1.
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

CLASSES = (
    'electronic', 'appliance', 'food-thing', 'furniture-thing', 'indoor', 'kitchen', 'accessory', 'animal', 'outdoor',
    'person', 'sports', 'vehicle', 'ceiling', 'floor', 'food-stuff', 'furniture-stuff', 'rawmaterial', 'textile',
    'wall', 'window', 'building', 'ground', 'plant', 'sky', 'solid', 'structural', 'water',
)  # fmt: skip

GRANULARITIES = (
    Granularity('class', CLASSES, np.array([RAW_TO_27[raw] for raw in USED_RAW])),
    Granularity('leaf', tuple(COCOStuffDataset.METAINFO['classes']), np.arange(len(USED_RAW))),
)

LAYOUTS = {
    'stego': Layout(
        images='cocostuff/images/{split}',
        labels='cocostuff/annotations/{split}',
        lists='cocostuff/curated/{split}',
        image_suffix='.jpg',
        label_suffix='.png',
        values=dict(enumerate(RAW_TO_27)),
        finest=dict.fromkeys(range(len(RAW_TO_27)), IGNORED_LABEL) | {raw: leaf for leaf, raw in enumerate(USED_RAW)},
    ),
    'mmseg': Layout(
        images='images/{split}',
        labels='annotations/{split}',
        lists='curated/{split}',
        image_suffix='.jpg',
        label_suffix='_labelTrainIds.png',
        values={train_id: RAW_TO_27[raw] for train_id, raw in enumerate(USED_RAW)},
        finest={leaf: leaf for leaf in range(len(USED_RAW))},
    ),
}


@DATASETS.register_module()
class COCOStuff27(LayoutSegDataset):
    """COCO-Stuff with the 27 classes of unsupervised segmentation, 12 of things and 15 of stuff.

    Two layouts on disk::

        stego   cocostuff/images/<split>/<id>.jpg, cocostuff/annotations/<split>/<id>.png (raw values 0..181, 255),
                cocostuff/curated/<split>/<list>.txt
        mmseg   images/<split>/<id>.jpg, annotations/<split>/<id>_labelTrainIds.png (values 0..170, 255, made by mmseg's
                tools/dataset_converters/coco_stuff164k.py), curated/<split>/<list>.txt (copy STEGO's lists there)

    Only the listed images are looked at. STEGO trains on ``Coco164kFull_Stuff_Coarse.txt`` of train2017 (97,702 images)
    and scores on ``Coco164kFull_Stuff_Coarse_7.txt`` of val2017 (2,175). Many others train on the ``_7`` list of
    train2017 (49,629); the list of val2017 without ``_7`` has 4,172 images (docs/methods/data.md 5.2).

    Args:
        layout: ``'stego'`` or ``'mmseg'``.
        split: ``'train2017'`` or ``'val2017'``.
        ann_file: List of ids, one per line: a name in the layout's folder of lists, or an absolute path. Empty: every
            image of the split.
        level: ``'class'`` for the 27 classes, as None, or ``'leaf'`` for the 171 that they merge.
        **kwargs: See `LayoutSegDataset`, which also says what is raised.
    """

    METAINFO = dict(classes=CLASSES, palette=numbered_palette(len(CLASSES)))
    LAYOUTS = LAYOUTS
    GRANULARITIES = GRANULARITIES

    def __init__(
        self, data_root: str = 'data/', layout: str = 'stego', split: str = 'train2017', **kwargs: Any
    ) -> None:
        super().__init__(data_root, layout, split, **kwargs)
