"""Cityscapes with the 27 classes that are not void."""

from __future__ import annotations

import numpy as np

from omh_mmseg.datasets.layouts import Layout, LayoutSegDataset
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.structures.labels import IGNORED_LABEL

FIRST_CLASS = 7
# Label id -> class, docs/methods/data.md B.2. The licence plates, id -1, are stored as 255 where they are stored at
# all.
ID_TO_27 = {
    label_id: label_id - FIRST_CLASS if label_id >= FIRST_CLASS else IGNORED_LABEL for label_id in range(-1, 34)
}

CLASSES = (
    'road', 'sidewalk', 'parking', 'rail track', 'building', 'wall', 'fence', 'guard rail', 'bridge', 'tunnel', 'pole',
    'polegroup', 'traffic light', 'traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck',
    'bus', 'caravan', 'trailer', 'train', 'motorcycle', 'bicycle',
)  # fmt: skip
# The official categories, without the void one, in their order.
CATEGORIES = {
    'flat': ('road', 'sidewalk', 'parking', 'rail track'),
    'construction': ('building', 'wall', 'fence', 'guard rail', 'bridge', 'tunnel'),
    'object': ('pole', 'polegroup', 'traffic light', 'traffic sign'),
    'nature': ('vegetation', 'terrain'),
    'sky': ('sky',),
    'human': ('person', 'rider'),
    'vehicle': ('car', 'truck', 'bus', 'caravan', 'trailer', 'train', 'motorcycle', 'bicycle'),
}
_CATEGORY_OF = {name: number for number, names in enumerate(CATEGORIES.values()) for name in names}
GRANULARITIES = (
    Granularity('category', tuple(CATEGORIES), np.array([_CATEGORY_OF[name] for name in CLASSES])),
    Granularity('class', CLASSES, np.arange(len(CLASSES))),
)
# The official colours; they give poles and groups of poles the same one.
PALETTE = [
    [128, 64, 128], [244, 35, 232], [250, 170, 160], [230, 150, 140], [70, 70, 70], [102, 102, 156], [190, 153, 153],
    [180, 165, 180], [150, 100, 100], [150, 120, 90], [153, 153, 153], [153, 153, 153], [250, 170, 30], [220, 220, 0],
    [107, 142, 35], [152, 251, 152], [70, 130, 180], [220, 20, 60], [255, 0, 0], [0, 0, 142], [0, 0, 70], [0, 60, 100],
    [0, 0, 90], [0, 0, 110], [0, 80, 100], [0, 0, 230], [119, 11, 32],
]  # fmt: skip


def _layout(top: str) -> Layout:
    return Layout(
        images=f'{top}leftImg8bit/{{split}}',
        labels=f'{top}gtFine/{{split}}',
        lists=top.rstrip('/'),
        image_suffix='_leftImg8bit.png',
        label_suffix='_gtFine_labelIds.png',
        values=ID_TO_27,
        nested=True,
    )


LAYOUTS = {'stego': _layout('cityscapes/'), 'mmseg': _layout('')}


@DATASETS.register_module()
class Cityscapes27(LayoutSegDataset):
    """Cityscapes with 27 classes: the label ids 7..33, all others are ignored (docs/methods/data.md 5.4, B.2).

    The folders are those of Cityscapes itself; the layouts differ in whether ``data_root`` names their parent::

        stego   cityscapes/leftImg8bit/<split>/<city>/<id>_leftImg8bit.png,
                cityscapes/gtFine/<split>/<city>/<id>_gtFine_labelIds.png
        mmseg   leftImg8bit/<split>/<city>/..., gtFine/<split>/<city>/...

    Args:
        layout: ``'stego'`` or ``'mmseg'``.
        split: ``'train'`` (2,975 images) or ``'val'`` (500).
        ann_file: List of ``<city>/<id>``, one per line, in the folder that holds ``leftImg8bit``, or an absolute path.
            Empty: every image of the split, city after city.
        level: ``'class'`` for the 27 classes, as None, or ``'category'`` for the official 7 that group them.
        **kwargs: See `LayoutSegDataset`, which also says what is raised.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)
    LAYOUTS = LAYOUTS
    GRANULARITIES = GRANULARITIES
