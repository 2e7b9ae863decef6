"""Which fine clusters make a class, and how they hang together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from omh_mmseg.analysis.level_counts import count_levels, labelled_loader, load_levels
from omh_mmseg.analysis.plan_trees import DEFAULT_MARGINALS
from omh_mmseg.evaluation.cluster_names import cluster_names, naming_classes
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.transport import Hierarchy
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.tables import PathLike, list_files, markdown_table, write_csv
from omh_mmseg.visualization import draw_hierarchy_tree
from omh_mmseg.visualization.part_whole import draw_part_whole


def cluster_rows(hierarchy: Hierarchy, counts: Sequence[np.ndarray], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row per cluster of every level: what it shows and whose part it is.

    Args:
        hierarchy: Levels and plans.
        counts: Per level the pixels of each cluster and class, (K_l, classes).
        classes: Names.

    Returns:
        Rows with ``level``, ``cluster``, ``pixels``, ``share`` (of all pixels), ``class`` (see `naming_classes`,
        None without a pixel), ``purity`` (share of that class among its pixels), ``second`` and ``second_share`` (the
        largest other class), ``parent`` (of the coarser level, None at level 1), ``parent_mass`` (share of the
        cluster's plan mass that the parent takes), ``parent_class`` and ``chain``, the level-by-level way to level 1 as
        text.

    Raises:
        ValueError: If the counts do not fit the levels.
    """
    counts = [np.asarray(level) for level in counts]
    shapes, expected = [level.shape for level in counts], [(size, len(classes)) for size in hierarchy.level_sizes]
    if shapes != expected:
        raise ValueError(f'counts of shapes {shapes} do not fit levels and classes {expected}')
    parents = [level.numpy() for level in hierarchy.parents]
    masses = [level.numpy() for level in hierarchy.parent_mass]
    assigned = [naming_classes(level) for level in counts]
    names = [cluster_names(chosen, classes, len(chosen)) for chosen in assigned]
    rows: list[dict[str, Any]] = []
    for level, table in enumerate(counts):
        for cluster, row in enumerate(table):
            pixels, named = int(row.sum()), int(assigned[level][cluster])
            second = next((label for label in np.argsort(-row, kind='stable') if label != named and row[label]), None)
            parent = int(parents[level - 1][cluster]) if level else None
            rows.append({
                'level': level + 1, 'cluster': cluster, 'pixels': pixels,
                'share': pixels / table.sum() if table.any() else float('nan'),
                'class': names[level][cluster], 'purity': float(row[named] / pixels) if pixels else float('nan'),
                'second': None if second is None else classes[second],
                'second_share': float('nan') if second is None else float(row[second] / pixels),
                'parent': parent, 'parent_mass': float(masses[level - 1][cluster]) if level else float('nan'),
                'parent_class': None if parent is None else names[level - 1][parent],
                'chain': _chain(parents, names, level, cluster),
            })  # fmt: skip
    return rows


def class_rows(counts: np.ndarray, classes: Sequence[str], least: float = 0.02) -> list[dict[str, Any]]:
    """One row per class and cluster that covers enough of it, largest first.

    Args:
        counts: (clusters, classes) pixels.
        classes: Names.
        least: Share of a class from which a cluster is listed.

    Returns:
        Rows with ``class``, ``cluster``, ``share_of_class``, ``purity`` (share of the class among the cluster's pixels)
        and ``majority`` (whether most of the cluster's pixels have this class).
    """
    counts = np.asarray(counts)
    totals, sizes, majority = counts.sum(axis=0), counts.sum(axis=1), counts.argmax(axis=1)
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(classes):
        for cluster in np.argsort(-counts[:, label], kind='stable'):
            pixels = counts[cluster, label]
            if pixels == 0 or pixels < least * totals[label]:
                break
            rows.append({
                'class': name, 'cluster': int(cluster), 'share_of_class': float(pixels / totals[label]),
                'purity': float(pixels / sizes[cluster]), 'majority': bool(majority[cluster] == label),
            })  # fmt: skip
    return rows


def class_summary(counts: np.ndarray, classes: Sequence[str], shown: int = 5) -> list[dict[str, Any]]:
    """One row per class for reading: how many clusters stand for it, what they cover, and the largest parts.

    Args:
        counts: (clusters, classes) pixels.
        classes: Names.
        shown: How many clusters are listed.

    Returns:
        Rows with ``class``, ``clusters`` (of which it is the majority), ``covered`` (share of its pixels in those),
        ``purity`` (share of the class among their pixels) and ``largest parts`` as text; stars mark those clusters.
    """
    counts = np.asarray(counts)
    majority = np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
    parts = class_rows(counts, classes)
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(classes):
        of_class = counts[majority == label]
        covered, total = of_class[:, label].sum(), counts[:, label].sum()
        largest = [row for row in parts if row['class'] == name][:shown]
        texts = [f'{row["cluster"]}{"*" * row["majority"]} {row["share_of_class"]:.0%}' for row in largest]
        rows.append({
            'class': name, 'clusters': len(of_class), 'covered': float(covered / total) if total else float('nan'),
            'purity': float(covered / of_class.sum()) if of_class.any() else float('nan'),
            'largest parts': ', '.join(texts),
        })  # fmt: skip
    return rows


def _chain(parents: Sequence[np.ndarray], names: Sequence[Sequence[str | None]], level: int, cluster: int) -> str:
    steps = [f'{cluster} {names[level][cluster] or "(unused)"}']
    for coarser in reversed(range(level)):
        cluster = int(parents[coarser][cluster])
        steps.append(f'{cluster} {names[coarser][cluster] or "(unused)"}')
    return ' < '.join(steps)


def analyse_parts(
    config: Config,
    checkpoint: str,
    out: PathLike,
    split: str = 'val',
    images: int | None = None,
    groups: str | None = None,
    labels: str | None = None,
    device: str | None = None,
    marginals: str = DEFAULT_MARGINALS,
) -> str:
    """Which clusters make a class, and the tree with the classes of its clusters.

    Args:
        config: Of the model and its data.
        checkpoint: Its weights.
        out: Folder of ``clusters.csv``, ``classes.csv``, ``part_whole.md``, ``part_whole.png`` and ``tree.png``.
        split: Labelled images.
        images: Only the first so many.
        groups: See `omh_mmseg.datasets.granularity.read_groups`.
        labels: Name of the granularity; the finest if None.
        device: See `load_levels`.
        marginals: Of the plans of the tree; see `plan_trees`.

    Returns:
        The table of classes as text.

    Raises:
        ValueError: An unknown granularity, or a model without levels.
    """
    loader, granularities = labelled_loader(config, split, images, groups)
    known: dict[str | None, Granularity] = {one.name: one for one in granularities}
    if labels is not None and labels not in known:
        raise ValueError(f'--labels must be one of {list(known)}; got {labels!r}')
    chosen = known.get(labels, granularities[-1])
    model = load_levels(config, checkpoint, device)
    (counted,) = count_levels([[model]], loader, len(chosen.table)).models
    counts = [chosen.merge(table) for table in counted.counts]
    hierarchy, classes, out = counted.trees[marginals], chosen.classes, Path(out)
    rows = cluster_rows(hierarchy, counts, classes)
    by_class = class_rows(counts[-1], classes)
    summary = class_summary(counts[-1], classes)
    chains = [
        {key: row[key] for key in ('cluster', 'share', 'purity', 'second', 'second_share', 'chain')}
        for row in rows
        if row['level'] == len(counts) and row['pixels']
    ]
    text = '\n\n'.join([
        f'Parts of each class among the clusters of level {len(counts)} (`*`: most of its pixels have this class)',
        markdown_table(summary), 'From each finest cluster up to level 1', markdown_table(chains),
    ])  # fmt: skip
    names = [[row['class'] for row in rows if row['level'] == level + 1] for level in range(len(counts))]
    paths = [
        write_csv(out / 'clusters.csv', rows),
        *([write_csv(out / 'classes.csv', by_class)] if by_class else []),
        write_text(out / 'part_whole.md', f'{text}\n'),
        draw_part_whole(out / 'part_whole.png', hierarchy, counts[-1], classes),
        draw_hierarchy_tree(out / 'tree.png', hierarchy, usage=[table.sum(1) for table in counts], names=names),
    ]
    return f'{markdown_table(summary)}\n\n{list_files(paths)}'
