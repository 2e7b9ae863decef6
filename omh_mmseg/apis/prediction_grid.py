"""One picture of the predictions at every level of the hierarchy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from omh_mmseg.apis.inference import SegmentationInferencer
from omh_mmseg.apis.prediction_files import class_palette, head_palettes
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.assignment import UNMATCHED
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.spread import evenly_spread
from omh_mmseg.visualization import draw_segmentation_grid
from omh_mmseg.visualization.local_visualizer import fit_image

ROWS = 6
MOST_ENTRIES = 60
"""Entries of a key, beyond which finer levels are left to the shades of their colours."""
SHADES = 'Each cluster of a finer level has a shade of the colour of the cluster that it belongs to.'
GREY = 'Grey: a cluster without a class.'
UNRELATED = 'The clusters have no classes yet: their colours have nothing to do with those of the classes.'


def draw_prediction_grid(
    path: str | os.PathLike[str],
    inferencer: SegmentationInferencer,
    images: Sequence[str],
    rows: int = ROWS,
    photos: bool = False,
) -> Path:
    """Draw one row per image: the labels where they are known, then every predicted level, coarsest first.

    Without OMH the probe takes the place of the levels. Level 1 has the colours of the classes that its clusters were
    matched to, finer levels have shades of it; see `head_palettes`. Labels are those of the config's test split, so
    images from elsewhere have none, and without any there is no such column.

    Args:
        path: PNG to write.
        inferencer: Model and options.
        images: Paths.
        rows: At most so many images, spread evenly over ``images``.
        photos: Put the image itself first. Without it the picture holds no pixel of an image.

    Returns:
        ``path``.

    Raises:
        ValueError: ``rows`` is below 1, or there is no image.
    """
    if rows < 1 or not images:
        raise ValueError(f'a grid needs at least one row and one image; got rows={rows} and {len(images)} images.')
    chosen = [images[index] for index in evenly_spread(len(images), rows)]
    heads = [head for head in inferencer.heads if head.startswith('level')] or ['probe']
    results = list(inferencer.iterate(chosen))
    sizes = [result.clusters[heads[0]].shape for result in results]
    known = find_labels(inferencer.model.cfg, chosen)
    truth = [
        fit_labels(known[image], size) if image in known else np.full(size, IGNORED_LABEL, np.uint8)
        for image, size in zip(chosen, sizes)
    ]
    palettes, assignment = head_palettes(inferencer), inferencer.assignment_of(heads[0])
    shown = {head: palettes[head] for head in heads}
    named = bool(inferencer.classes) and (bool(known) or assignment is not None)
    return draw_segmentation_grid(
        path,
        [_photo(inferencer, image, size, result.metainfo) for image, size, result in zip(chosen, sizes, results)]
        if photos else None,
        [[result.clusters[head] for result in results] for head in heads],
        list(shown.values()),
        truth if known else None,
        *_key(inferencer, [] if assignment is not None else [*shown.items()], named, bool(known)),
        [
            *(['image'] if photos else []),
            *(['labels'] if known else []),
            *(f'{head.replace("level", "level ")}\n{inferencer.heads[head]} clusters' for head in heads),
        ],
        ' '.join(_notes(len(heads), assignment, bool(known))),
        IGNORED_LABEL,
    )  # fmt: skip


def _key(
    inferencer: SegmentationInferencer, palettes: Sequence[tuple[str, np.ndarray]], named: bool, labelled: bool
) -> tuple[np.ndarray, list[str] | None]:
    """Colours and what they stand for: first the classes, where they are shown, then clusters that have none.

    Args:
        inferencer: Model.
        palettes: Names and colours of the heads whose clusters have no classes.
        named: Whether the classes are shown and have names.
        labelled: Whether labels are shown.
    """
    colours = class_palette(inferencer)
    if named:
        colours = colours[: len(inferencer.classes)]
    elif palettes and not labelled:
        colours = colours[:0]
    entries = list(inferencer.classes) if named else [f'label {number}' for number in range(len(colours))]
    if not named and not palettes:
        return colours, None
    for place, (head, palette) in enumerate(palettes):
        if place and len(entries) + len(palette) > MOST_ENTRIES:
            break
        entries += [f'{head.replace("level", "level ")}: {number}' for number in range(len(palette))]
        colours = np.concatenate([colours, palette])
    return colours, entries


class LabelFinder:
    """Labels of those images that belong to the config's test split, cut and sized as its pipeline says.

    A data set that cannot be found is logged, and there are no labels then.

    Args:
        config: Of the run.
        images: Paths that may be asked for.
    """

    def __init__(self, config: Config, images: Sequence[str]) -> None:
        wanted = {os.path.realpath(image): image for image in images}
        self._places: dict[str, int] = {}
        datasets = innermost_datasets(config.test_dataloader.dataset).values()
        roots = [str(dataset.get('data_root') or os.curdir) for dataset in datasets]
        if not any(map(os.path.isdir, roots)):
            # No image can lie there, and the demo's scenes would be drawn first.
            MMLogger.get_current_instance().info(f'no labels are drawn, as there is no {", ".join(roots)}')
            return
        init_default_scope(config.get('default_scope', 'mmseg'))
        try:
            self._dataset = DATASETS.build({**config.test_dataloader.dataset, 'pipeline': config.test_pipeline})
        except (OSError, ValueError) as error:
            MMLogger.get_current_instance().info(f'no labels are drawn, as the test split cannot be read: {error}')
            return
        if getattr(self._dataset, 'turn_images', True) is False:
            # The predicted images are turned, so that their labels must be.
            self._dataset.turn_images = True
        for index in range(len(self._dataset)):
            image = wanted.get(os.path.realpath(self._dataset.get_data_info(index)['img_path']))
            if image is not None:
                self._places[image] = index

    def __call__(self, image: str) -> np.ndarray | None:
        """Labels uint8 (H, W) of an image, None where there are none."""
        if image not in self._places:
            return None
        sample = self._dataset[self._places[image]]['data_samples']
        return sample.gt_sem_seg.data[0].numpy().astype(np.uint8) if 'gt_sem_seg' in sample else None


def find_labels(config: Config, images: Sequence[str]) -> dict[str, np.ndarray]:
    """Labels uint8 (H, W) of those images that have some; see `LabelFinder`."""
    finder = LabelFinder(config, images)
    labels = {image: finder(image) for image in images}
    return {image: label for image, label in labels.items() if label is not None}


def _notes(levels: int, assignment: np.ndarray | None, labelled: bool) -> list[str]:
    notes = [SHADES] if levels > 1 else []
    if assignment is None and labelled:
        notes.append(UNRELATED)
    if assignment is not None and bool((assignment == UNMATCHED).any()):
        notes.append(GREY)
    return notes


def fit_labels(labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Labels (H, W) at another size, each pixel that of the nearest one."""
    height, width = size
    return labels if labels.shape == size else mmcv.imresize(labels, (width, height), interpolation='nearest')


def _photo(inferencer: SegmentationInferencer, image: str, size: tuple[int, ...], metainfo: dict) -> np.ndarray:
    height, width = size
    return fit_image(inferencer.reader.read(image).rgb, (height, width), metainfo)
