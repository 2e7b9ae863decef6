"""Segment many images into files: masks, overlays and a summary."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from omh_mmseg.apis.inference import Segmentation, SegmentationInferencer
from omh_mmseg.apis.result_folders import PREDICTIONS, make_room
from omh_mmseg.datasets.images.reader import ImageReader
from omh_mmseg.evaluation.cluster_names import cluster_names
from omh_mmseg.evaluation.protocols import protocol_of_config
from omh_mmseg.structures.assignment import UNMATCHED
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.digests import weights_digest
from omh_mmseg.utils.files import replaced_when_complete, write_text
from omh_mmseg.utils.masks import write_mask
from omh_mmseg.visualization import distinct_colours, match_colours
from omh_mmseg.visualization.colours import class_colours, level_palettes
from omh_mmseg.visualization.local_visualizer import fit_image


def predict_images(
    inferencer: SegmentationInferencer,
    images: Sequence[str],
    out_dir: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    overlay: str | None = 'probe',
    opacity: float = 0.5,
    skipped: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Segment images and write the results.

    ::

        <out_dir>/clusters/<head>/<name>.png   cluster numbers; probe, linear, level1, level2, ...
        <out_dir>/merged/<head>/<name>.png     finer levels as numbers of their level-1 ancestors
        <out_dir>/classes/<head>/<name>.png    classes, 255 for none; of the heads whose clusters have classes
        <out_dir>/overlays/<name>.jpg          the overlay's head over the image
        <out_dir>/summary.json                 settings, colours, and the pixels of every cluster in every image

    Masks are palette pictures, see `write_mask`: their pixels are the numbers, their colours the overlays'. With more
    than 255 clusters they are 16-bit grey ones. Predictions by another model that ``summary.json`` lists are replaced.
    Every file appears complete or not at all. An image that cannot
    be read is reported in the summary and left out; the rest goes on.

    Args:
        inferencer: Model and options.
        images: Paths.
        out_dir: Made if absent.
        root: Folder that the results' names are relative to; by default each image's own.
        overlay: Head to draw over the images, None for no overlays.
        opacity: Of its colours, in (0, 1].
        skipped: (path, reason) of what is not among the images, for the summary; see `list_folder`.

    Returns:
        The content of ``summary.json``; ``failed`` has the images that could not be read and ``skipped`` what was left
        out, each with the reason, and ``counts`` how many there are of each kind.

    Raises:
        ValueError: An unknown head, two images of one name, or an opacity out of range.
    """
    out_dir, start = Path(out_dir), time.monotonic()
    if overlay is not None and overlay not in inferencer.heads:
        raise ValueError(f'there is no head {overlay!r} to overlay; the model has {", ".join(inferencer.heads)}.')
    if not 0 < opacity <= 1:
        raise ValueError(f'opacity must lie in (0, 1]; got {opacity}.')
    names = _names(images, root)
    palettes = head_palettes(inferencer)
    summary = describe_heads(inferencer, palettes)
    summary['settings'] = prediction_settings(inferencer)
    summary.update(images=[], failed=[], skipped=[dict(path=path, reason=reason) for path, reason in skipped])

    def failed(path: Any, error: Exception) -> None:
        summary['failed'].append(dict(image=path, error=str(error)))

    out_dir.mkdir(parents=True, exist_ok=True)
    for result in inferencer.iterate(track(images, 'segmenting'), failed):
        assert result.path is not None
        # What is there stays where nothing can be segmented.
        if not summary['images']:
            make_room(out_dir, summary['settings'])
        entry = write_masks(out_dir, names[result.path], result, inferencer, palettes)
        if overlay is not None:
            entry['overlay'] = _write_overlay(
                out_dir, names[result.path], result, overlay, palettes, opacity, inferencer.reader
            )
        summary['images'].append(entry)
    seconds = time.monotonic() - start
    kinds = dict(segmented='images', failed='failed', skipped='skipped')
    summary['counts'] = {kind: len(summary[key]) for kind, key in kinds.items()}
    summary['counts']['found'] = sum(summary['counts'].values())
    summary.update(seconds=round(seconds, 2), images_per_second=round(len(summary['images']) / seconds, 2))
    if summary['images'] or not (out_dir / PREDICTIONS).is_file():
        write_text(out_dir / PREDICTIONS, f'{json.dumps(summary, indent=1, default=str)}\n')
    return summary


def head_palettes(inferencer: SegmentationInferencer) -> dict[str, np.ndarray]:
    """Colours (K, 3) of every head: those of the classes where they are known; finer levels have shades of level 1."""
    base = class_palette(inferencer)
    palettes = {}
    for head, clusters in inferencer.heads.items():
        assignment = inferencer.assignment_of(head)
        palettes[head] = distinct_colours(clusters) if assignment is None else match_colours(base, assignment)
    if inferencer.hierarchy is not None:
        assignment = inferencer.assignment_of('level1')
        shades = level_palettes(inferencer.hierarchy, base, assignment)
        palettes |= {f'level{n}': shade for n, shade in enumerate(shades, 1) if f'level{n}' in palettes}
    return palettes


def _merged_palette(inferencer: SegmentationInferencer) -> np.ndarray | None:
    """Colours of level 1, which need not be among the heads; None without OMH."""
    if inferencer.hierarchy is None:
        return None
    assignment = inferencer.assignment_of('level1')
    if assignment is None:
        return distinct_colours(inferencer.hierarchy.level_sizes[0])
    return match_colours(class_palette(inferencer), assignment)


def class_palette(inferencer: SegmentationInferencer) -> np.ndarray:
    """Colours uint8 (K, 3) of the classes: the data set's where it has enough, else generated ones."""
    count = max(len(inferencer.classes), inferencer.model.num_classes)
    return class_colours((inferencer.model.dataset_meta or {}).get('palette'), count)


def _names(images: Sequence[str], root: str | os.PathLike[str] | None) -> dict[str, str]:
    """Name of the results of each image, without ending."""
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for path in images:
        name = os.path.splitext(os.path.basename(path) if root is None else os.path.relpath(path, root))[0]
        if name.startswith(os.pardir):
            raise ValueError(f'{path} is not below {os.fspath(root or "")}, which the names of the results start from.')
        if owners.setdefault(name, path) != path:
            raise ValueError(f'{owners[name]} and {path} would both be written as {name}; rename one.')
        names[path] = name
    return names


def describe_heads(inferencer: SegmentationInferencer, palettes: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a summary says of the heads, and by which protocol they are predicted."""
    heads = {}
    for head, clusters in inferencer.heads.items():
        assignment = inferencer.assignment_of(head)
        heads[head] = dict(
            clusters=clusters,
            classes=None if assignment is None else assignment.tolist(),
            names=cluster_names(assignment, inferencer.classes, clusters),
            colours=palettes[head].tolist(),
        )
        if inferencer.hierarchy is not None and head.startswith('level'):
            heads[head]['ancestors'] = inferencer.hierarchy.ancestors(int(head[5:])).tolist()
    return dict(classes=list(inferencer.classes), heads=heads, protocol=protocol_of_config(inferencer.model.cfg))


def prediction_settings(inferencer: SegmentationInferencer) -> dict[str, Any]:
    """What masks of an image depend on, as plain data."""
    model = inferencer.model
    return dict(
        weights=weights_digest(model.state_dict()), heads=list(inferencer.heads),
        protocol=protocol_of_config(model.cfg), prediction=repr(model.predictor.options),
    )  # fmt: skip


def write_masks(
    out_dir: Path,
    name: str,
    result: Segmentation,
    inferencer: SegmentationInferencer,
    palettes: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Write the masks of an image as `predict_images` does, and return its entry in the summary."""
    height, width = next(iter(result.clusters.values())).shape
    entry: dict[str, Any] = dict(image=result.path, height=height, width=width, masks={}, pixels={})
    painted = dict(merged=_merged_palette(inferencer), classes=class_palette(inferencer))
    for kind, maps in (('clusters', result.clusters), ('merged', result.merged), ('classes', result.classes)):
        for head, labels in maps.items():
            path = out_dir / kind / head / f'{name}.png'
            values = np.where(labels == UNMATCHED, IGNORED_LABEL, labels) if kind == 'classes' else labels
            write_mask(path, values, painted[kind] if kind != 'clusters' else palettes[head])
            entry['masks'].setdefault(kind, {})[head] = str(path.relative_to(out_dir))
    for head, labels in result.clusters.items():
        numbers, pixels = np.unique(labels, return_counts=True)
        entry['pixels'][head] = dict(zip(map(str, numbers.tolist()), pixels.tolist()))
    return entry


def _write_overlay(
    out_dir: Path,
    name: str,
    result: Segmentation,
    head: str,
    palettes: dict[str, np.ndarray],
    opacity: float,
    reader: ImageReader,
) -> str:
    labels = result.clusters[head]
    assert result.path is not None
    image = fit_image(reader.read(result.path).rgb, labels.shape, result.metainfo).astype(np.float32)
    blended = (1 - opacity) * image + opacity * palettes[head][labels]
    path = out_dir / 'overlays' / f'{name}.jpg'
    with replaced_when_complete(path) as file:
        Image.fromarray(blended.round().astype(np.uint8)).save(file, format='jpeg', quality=92)
    return str(path.relative_to(out_dir))
