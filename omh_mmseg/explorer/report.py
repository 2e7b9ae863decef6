"""Writes the folder of the page: one image after the other, and what they add up to at the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from omh_mmseg.apis.inference import Examined, SegmentationInferencer
from omh_mmseg.apis.prediction_files import class_palette, head_palettes
from omh_mmseg.apis.prediction_grid import LabelFinder
from omh_mmseg.apis.result_folders import IMAGES, LABELS, PAGE, REPORT
from omh_mmseg.evaluation.cluster_names import cluster_names
from omh_mmseg.evaluation.protocols import protocol_of_config
from omh_mmseg.explorer import pictures
from omh_mmseg.explorer.page import FIGURES, HINT, describe_tree, write_page
from omh_mmseg.explorer.statistics import LevelStatistics, rounded
from omh_mmseg.models.prediction.label_free import LabelFreeMeter
from omh_mmseg.utils.checks import COUNT, options_of
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.progress import progress_bar
from omh_mmseg.utils.spread import evenly_spread
from omh_mmseg.utils.text import first_few
from omh_mmseg.visualization.colours import hex_colour
from omh_mmseg.visualization.local_visualizer import fit_image

WRITTEN = re.compile(
    rf'{re.escape(PAGE)}|{re.escape(REPORT)}|{IMAGES}/\d+\.jpg|{LABELS}/\d+\.png|masks/\d+/(probe|level\d+)(_\d+)?\.png'
)
"""Files of a report, from its folder."""
OF_SYSTEMS = ('.DS_Store', 'Thumbs.db', 'desktop.ini')
"""What file managers leave in a folder that they show."""
MOST_BYTES = 15e6
"""Above it a page is slow to send and to open, and a warning says what makes it smaller."""
NO_TREE = (
    'This model has no hierarchy: its config sets no model.omh_head. The page shows the one level that it has, the '
    'clusters of the cluster probe.'
)
ONE_LEVEL = 'This model has one OMH level, so that there is no tree above or below it.'
TREE = (
    'Coarsest level on the left. Width of a line: plan mass that the parent takes; dashed: a further parent with 15 % '
    'or more. Bar: share of the pixels.'
)
UNNAMED = ' The checkpoint knows no classes of the clusters: they have numbers alone.'


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        most_images: Images in the page, spread evenly over those given.
        side: Longer side of a picture in pixels; smaller images keep their size.
        measure: Whether the figures without labels are measured, at the cost of two more passes per image.
        progress: Draw a progress bar on stderr.
    """

    most_images: int = 60
    side: int = 480
    measure: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        accepted = options_of(self.__annotations__, dict(most_images=COUNT, side='[32, 4096]'))
        for name, option in accepted.items():
            option.check(name, getattr(self, name))


def write_report(
    inferencer: SegmentationInferencer,
    images: Sequence[str],
    out: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    options: ReportOptions | None = None,
) -> dict[str, Any]:
    """Segment images at every level and write a page that shows them beside the tree.

    ::

        <out>/index.html                        the page; needs no network and no server
        <out>/explorer.json                     its figures, per level and cluster
        <out>/images/0000.jpg                   the images, as large as they are shown
        <out>/masks/0000/level1.png             clusters of a level in their colours; probe.png without OMH
        <out>/masks/0000/level1_7.png           the shade that leaves one cluster lit
        <out>/labels/0000.png                   labels, of images of the config's test split

    The folder takes the place of an earlier report once it is complete; until then that one stays. An image that cannot
    be read is left out. 60 images of 480 pixels take less than 15 MB where clusters are as coarse as the folder configs
    have them; one warning says what to do about a larger folder.

    Args:
        inferencer: Model and options.
        images: Paths.
        out: The folder; made, or an earlier report.
        root: Folder that the images' names are relative to; by default each image's own, but for two of one name.
        options: See `ReportOptions`.

    Returns:
        The content of ``explorer.json`` with ``failed`` (image and error) and ``bytes``, the size of the folder.

    Raises:
        OSError: No image can be read, or the folder cannot be written to.
        ValueError: ``out`` holds something else than a report, or ``test_cfg.levels`` leaves out levels of the tree.
    """
    options = options or ReportOptions()
    out = Path(out)
    _check_folder(out)
    _check_levels(inferencer)
    chosen = [images[place] for place in evenly_spread(len(images), options.most_images)]
    report = _Report(inferencer, chosen, options)
    with _replaced_folder(out) as folder:
        with progress_bar(options.progress) as bar:
            task = bar.add_task('segmenting', total=len(chosen))
            alone = Counter(map(os.path.basename, chosen))
            for path in chosen:
                name = os.path.basename(path) if alone[os.path.basename(path)] == 1 else path
                report.add(folder, path, name if root is None else os.path.relpath(path, root))
                bar.advance(task)
        if not report.shown:
            raise OSError(f'none of {len(chosen)} images could be read; the first: {report.failed[0]["error"]}')
        data = report.data(len(images))
        write_text(folder / PAGE, write_page(data))
        summary = {key: data[key] for key in ('title', 'facts', 'note', 'protocol', 'plans')}
        summary['levels'] = data['levels']
        summary['images'] = [dict(image=image['path'], name=image['name']) for image in report.shown]
        summary['failed'] = report.failed
        write_text(folder / REPORT, f'{json.dumps(summary, indent=1)}\n')
        size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
    if size > MOST_BYTES:
        fitting = max(1, int(len(report.shown) * MOST_BYTES / size))
        MMLogger.get_current_instance().warning(
            f'{out} has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:g}: there are many clusters in many pieces. '
            f'--most-images {fitting} makes it small enough, or --side below {options.side} its pictures smaller'
        )
    return summary | dict(bytes=size)


class _Report:
    """What is known so far."""

    def __init__(self, inferencer: SegmentationInferencer, images: Sequence[str], options: ReportOptions) -> None:
        self.inferencer, self.options = inferencer, options
        heads = [head for head in inferencer.heads if head.startswith('level')] or ['probe']
        self.sizes = {head: inferencer.heads[head] for head in heads}
        palettes = head_palettes(inferencer)
        self.palettes = {head: palettes[head] for head in heads}
        self.find_labels = LabelFinder(inferencer.model.cfg, images)
        self.meter = LabelFreeMeter(inferencer.model)
        self.class_colours = class_palette(inferencer)
        self.statistics = {head: LevelStatistics(size, len(self.class_colours)) for head, size in self.sizes.items()}
        self.shown: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []

    def add(self, folder: Path, path: str, name: str) -> None:
        """Segment an image and write its pictures."""
        try:
            examined = self.inferencer.examine(path)
            rgb = self.inferencer.reader.read(path).rgb
        except (OSError, ValueError) as error:
            self.failed.append(dict(image=path, error=str(error)))
            return
        result, index = examined.segmentation, len(self.shown)
        size = result.clusters[next(iter(self.sizes))].shape
        height, width = pictures.shown_size(size, self.options.side)
        pictures.write_photo(
            folder / IMAGES / f'{index:04d}.jpg', fit_image(rgb, size, result.metainfo), (height, width)
        )
        labels = self.find_labels(path)
        if labels is not None:
            labels = pictures.resized_labels(labels, size)
            pictures.write_labels(folder / LABELS / f'{index:04d}.png',
                                  pictures.resized_labels(labels, (height, width)), self.class_colours)  # fmt: skip
        cells = pictures.shown_size((height, width), pictures.GRID_SIDE)
        levels = []
        for head, (grid, margins) in self._on_grid(examined).items():
            clusters = result.clusters[head]
            shares = self.statistics[head].add(index, clusters, grid, margins, labels)
            shown = pictures.resized_labels(clusters, (height, width))
            masks = folder / 'masks' / f'{index:04d}'
            pictures.write_level(masks / f'{head}.png', shown, self.palettes[head])
            for cluster in shares:
                pictures.write_shade(masks / f'{head}_{cluster}.png', shown == cluster)
            levels.append(dict(clusters=shares, runs=pictures.runs(pictures.resized_labels(shown, cells))))
        self.shown.append(
            dict(path=path, name=name, width=width, height=height, grid=[cells[1], cells[0]], levels=levels,
                 labels=labels is not None)
        )  # fmt: skip

    def data(self, found: int) -> dict[str, Any]:
        """What the page reads.

        Args:
            found: Number of images that these were chosen from.
        """
        model, hierarchy = self.inferencer.model, self.inferencer.hierarchy
        labelled = any(image['labels'] for image in self.shown)
        classes = list(self.inferencer.classes)
        tree: dict[str, Any] = dict(order=[list(range(next(iter(self.sizes.values()))))], plans=[], parents=[None],
                                    parent_shares=[None])  # fmt: skip
        if hierarchy is not None:
            tree = describe_tree(hierarchy, model.omh_head.plan.entropy_weight)
        figures = self.meter.figures() if self.options.measure else {}
        levels, named = [], False
        for place, (head, size) in enumerate(self.sizes.items()):
            names = cluster_names(self.inferencer.assignment_of(head), classes, size)
            named |= any(names)
            clusters = self.statistics[head].describe(classes)
            for number, cluster in enumerate(clusters):
                cluster.update(name=names[number], colour=hex_colour(self.palettes[head][number]))
                if place:
                    cluster.update(parent=tree['parents'][place][number],
                                   parent_share=tree['parent_shares'][place][number])  # fmt: skip
            levels.append(
                dict(head=head, title=f'Level {head[5:]}' if hierarchy is not None else 'Cluster probe',
                     clusters=clusters, figures=rounded(figures[head]) if figures else None)
            )  # fmt: skip
        # The labels of the key are those of the classes; more may be in the files.
        labels = [dict(name=name, colour=hex_colour(colour)) for name, colour in zip(classes, self.class_colours)]
        note = NO_TREE if hierarchy is None else ONE_LEVEL if len(self.sizes) == 1 else TREE
        return dict(
            title=f'{"Hierarchy" if len(self.sizes) > 1 else "Clusters"} of {_run_name(model.cfg)}',
            facts=self._facts(found), note=note + ('' if named else UNNAMED), hint=HINT, footer=self._footer(found),
            levels=levels, order=tree['order'], plans=tree['plans'], labels=labels if labelled else [],
            images=[{key: value for key, value in image.items() if key != 'path'} for image in self.shown],
            figures=list(FIGURES), protocol=protocol_of_config(model.cfg),
        )  # fmt: skip

    def _on_grid(self, examined: Examined) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        code = None if self.inferencer.model.predictor.options.flip else examined.code
        grid = self.meter.add(examined.inputs, examined.size, code, passes=self.options.measure)
        return {head: grid[head] for head in self.sizes}

    def _facts(self, found: int) -> str:
        model, sizes = self.inferencer.model, list(self.sizes.values())
        count = f'{len(self.shown)} images' if len(self.shown) > 1 else '1 image'
        facts = [type(model).__name__, f'{" → ".join(map(str, sizes))} clusters', count]
        if self.inferencer.hierarchy is not None and len(sizes) > 1:
            facts.insert(2, f'λ = {model.omh_head.plan.entropy_weight:g}')
        if found > len(self.shown) + len(self.failed):
            facts[-1] += f' of {found}, spread evenly'
        return ' · '.join(facts)

    def _footer(self, found: int) -> str:
        left_out = f' {len(self.failed)} images could not be read and are left out.' if self.failed else ''
        return f'Made by omh_mmseg. This page needs no network; its pictures are in the folder beside it.{left_out}'


def _run_name(config: Any) -> str:
    """Of the config's file."""
    path = getattr(config, 'filename', None)
    return Path(path).stem if path else 'model'


def _check_folder(out: Path) -> None:
    """Refuse a folder whose content is not an earlier report's."""
    if out.exists() and not out.is_dir():
        raise ValueError(f'{out} is a file; --out names the folder of the report')
    files = [file for file in out.rglob('*') if not file.is_dir() or file.is_symlink()] if out.is_dir() else []
    names = [file.relative_to(out).as_posix() for file in files if file.name not in OF_SYSTEMS]
    others = sorted(name for name in names if not WRITTEN.fullmatch(name))
    if others or (names and not {PAGE, REPORT} <= set(names)):
        raise ValueError(
            f'{out} holds something else than a report, which would be lost ({first_few(others or sorted(names))}); '
            'give another folder to --out'
        )


def _check_levels(inferencer: SegmentationInferencer) -> None:
    """Refuse a choice of levels: the tree and the plans of the page are those of all."""
    chosen = [head for head in inferencer.heads if head.startswith('level')]
    count = 0 if inferencer.hierarchy is None else len(inferencer.hierarchy.level_sizes)
    if chosen != [f'level{number}' for number in range(1, count + 1)]:
        raise ValueError(
            f'the page shows all {count} levels in their order, and model.test_cfg.levels chooses '
            f'{", ".join(chosen) or "none"}: --cfg-options model.test_cfg.levels=None shows them'
        )


@contextmanager
def _replaced_folder(out: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``out`` at the end, and is removed if anything fails."""
    # A link stays, and leads to the new report.
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.part', dir=out.parent))
    try:
        yield made
        made.chmod(0o755)
        earlier = made.with_suffix('.old')
        if out.is_dir():
            out.rename(earlier)
        made.rename(out)
        shutil.rmtree(earlier, ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)
