"""ISPRS Potsdam merged to three classes."""

from __future__ import annotations

import numpy as np

from omh_mmseg.datasets.layouts import Layout, LayoutSegDataset
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.structures.labels import IGNORED_LABEL

CLASSES = ('roads and cars', 'buildings and clutter', 'trees and vegetation')
PALETTE = [[255, 255, 255], [0, 0, 255], [0, 255, 0]]

# The six classes of ISPRS: their colours, and the class among the three (docs/methods/data.md 5.5, B.3).
COLOUR_TO_6 = {
    (255, 255, 255): 0,  # roads and other impervious surfaces
    (0, 0, 255): 1,  # buildings
    (0, 255, 255): 2,  # low vegetation
    (0, 255, 0): 3,  # trees
    (255, 255, 0): 4,  # cars
    (255, 0, 0): 5,  # clutter
}
SIX_TO_3 = (0, 1, 2, 2, 0, 1)
SURFACES = ('impervious surface', 'building', 'low vegetation', 'tree', 'car', 'clutter')
GRANULARITIES = (
    Granularity('class', CLASSES, np.array(SIX_TO_3)),
    Granularity('surface', SURFACES, np.arange(len(SURFACES))),
)

LAYOUTS = {
    'stego': Layout(
        images='potsdam/imgs',
        labels='potsdam/gt',
        lists='potsdam',
        image_suffix='.mat',
        label_suffix='.mat',
        values=dict(enumerate(SIX_TO_3)),
        finest={number: number for number in range(len(SIX_TO_3))},
        list_needed=True,
    ),
    # mmseg's converter numbers the colours from 1 in the same order and writes 0 for any other colour.
    'mmseg': Layout(
        images='img_dir/{split}',
        labels='ann_dir/{split}',
        lists='',
        image_suffix='.png',
        label_suffix='.png',
        values={0: IGNORED_LABEL} | {number: target for number, target in enumerate(SIX_TO_3, start=1)},
        finest={0: IGNORED_LABEL} | {number: number - 1 for number in range(1, len(SIX_TO_3) + 1)},
    ),
}


@DATASETS.register_module()
class Potsdam3(LayoutSegDataset):
    """ISPRS Potsdam with the three classes of unsupervised segmentation (docs/methods/data.md 5.5, B.3).

    Two layouts on disk::

        stego   potsdam/imgs/<n>.mat (array img, uint8 (200, 200, 4): RGB and infra-red, which is dropped),
                potsdam/gt/<n>.mat (array gt, int32 (200, 200), values 0..5, 255), potsdam/<list>.txt
        mmseg   img_dir/<split>/<patch>.png, ann_dir/<split>/<patch>.png (values 0..6, 255, made by mmseg's
                tools/dataset_converters/potsdam.py)

    STEGO trains on ``labelled_train.txt`` (4,545 patches) and scores on ``labelled_test.txt`` (855). The split of mmseg
    is another one, by tile, and its patches are of 512 pixels at full resolution: scores do not compare.

    `LoadImage` reads both kinds of images, ``LoadOptionalAnnotations`` both kinds of labels. Any other value than those
    above is an error.

    Args:
        layout: ``'stego'`` or ``'mmseg'``.
        split: ``'train'`` or ``'val'``, the folders of layout ``'mmseg'``; no meaning in layout ``'stego'``.
        ann_file: List of patches, one per line: a name in ``potsdam/``, or an absolute path. Layout ``'stego'`` needs
            one. Empty in layout ``'mmseg'``: every patch of the split.
        level: ``'class'`` for the three classes, as None, or ``'surface'`` for the six that they merge.
        **kwargs: See `LayoutSegDataset`, which also says what is raised.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)
    LAYOUTS = LAYOUTS
    GRANULARITIES = GRANULARITIES
