"""Trees of several methods on the predictions of a checkpoint, compared with a known tree of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from omh_mmseg.analysis.level_counts import (
    LevelCounts,
    collect_codes,
    count_levels,
    labelled_loader,
    load_levels,
    run_names,
    with_centres,
)
from omh_mmseg.analysis.plan_trees import DEFAULT_MARGINALS
from omh_mmseg.analysis.plans import DEFAULT_ENTROPY_WEIGHT, checkpoint_centres
from omh_mmseg.analysis.trees import (
    LINKAGES,
    agglomerated_parents,
    chance_scores,
    merged_counts,
    overlap_parents,
    recovery_scores,
)
from omh_mmseg.datasets.granularity import finest_labels
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.models.utils.k_means import fit_centres
from omh_mmseg.structures.granularity import Granularity, granularity_of_levels
from omh_mmseg.utils.config import split_dataset
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.tables import PathLike, list_files, markdown_table, summarise, with_spreads, write_csv
from omh_mmseg.visualization.recovery import CHANCE, draw_recovery

LEARNED, KMEANS = 'learned', 'k-means'
OVERLAP = 'overlap'
METHOD = ('model', 'clusters', 'parents')


@dataclass(frozen=True)
class RecoveryOptions:
    """What `recover` measures with.

    Attributes:
        split: Labelled images that the trees are measured on.
        images: Only the first so many of them; None for all.
        groups: JSON file of coarser classes; see `omh_mmseg.datasets.granularity.read_groups`.
        labels: Name of the granularity that each level of clusters stands for, coarsest first; None for the nearest in
            number.
        code_images: Images of the training split whose codes k-means sees.
        per_image: Codes of each.
        permutations: Random trees behind the chance.
        seed: Of the k-means starts, the codes and the random trees.
        marginals: Of the plans of the tree that the others are compared with, and whose parents chance deals; see
            `plan_trees`.
    """

    split: str = 'val'
    images: int | None = None
    groups: str | None = None
    labels: Sequence[str] | None = None
    code_images: int = 1000
    per_image: int = 100
    permutations: int = 200
    seed: int = 0
    marginals: str = DEFAULT_MARGINALS


def plan_method(marginals: str) -> str:
    """Name of the tree by plans of these marginals among the values of ``parents``."""
    return f'plan, {marginals} marginals'


def recover(
    config: Config,
    checkpoints: Sequence[str],
    options: RecoveryOptions,
    device: str | None = None,
    model_name: str = 'OMH',
    sizes: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Build trees from each checkpoint by every method and score them.

    Two sets of clusters: ``'learned'``, those of the head, and ``'k-means'`` on the codes, each level by itself. Five
    ways to a tree: ``'plan, usage marginals'`` and ``'plan, uniform marginals'`` (entropic transport between the
    centres of two levels, at the head's entropy weight; see `plan_trees`), ``'overlap'`` (the coarser cluster that
    shares most pixels), ``'average'`` and ``'ward'`` (agglomerative clustering of the finest centres, cut at the sizes
    of the coarser levels; their coarser clusters are unions of the finest). ``'chance'`` deals the parents of the plan
    of ``options.marginals`` at random. A model without an OMH head has the k-means rows alone.

    Args:
        config: Of the model and its data.
        checkpoints: Its weights, one per seed.
        options: See `RecoveryOptions`.
        device: See `load_levels`.
        model_name: Value of ``model`` in the rows.
        sizes: Numbers of clusters of a model without an OMH head.

    Returns:
        One row per checkpoint and method: ``model``, ``run``, ``clusters``, ``parents``, ``used`` (finest clusters with
        pixels), ``finest`` and the figures of `RecoveryScores`; rows of the plan of ``options.marginals`` also have
        ``p_agreement`` and ``p_merged_agreement``, the share of random trees that agree at least as much.

    Raises:
        ValueError: Fewer than two levels, labels of one granularity only, or unknown names of them.
    """
    loader, granularities = labelled_loader(config, options.split, options.images, options.groups)
    rows = []
    for run, checkpoint in zip(run_names(checkpoints), checkpoints):
        model = load_levels(config, checkpoint, device)
        has_head = model.omh_head is not None
        level_sizes = list(model.omh_head.level_sizes) if model.omh_head is not None else list(sizes or [])
        if len(level_sizes) < 2:
            raise ValueError(
                f'{checkpoint} has {len(level_sizes)} levels of clusters; a tree needs two. Models without an OMH head '
                'are compared at the level sizes of another one'
            )
        levels = levels_as_labels(level_sizes, granularities, options.labels)
        variants = [model] * has_head + [_kmeans_variant(model, config, level_sizes, options)]
        counted = count_levels([variants], loader, len(granularities[-1].table)).models
        for clusters, variant, level_counts in zip([LEARNED] * has_head + [KMEANS], variants, counted):
            assert variant.omh_head is not None
            finest = variant.omh_head.centres[-1].detach().cpu().numpy()
            methods = _score_methods(level_counts, finest, levels, options)
            rows += [dict(model=model_name, run=run, clusters=clusters) | method for method in methods]
    return rows


def levels_as_labels(
    sizes: Sequence[int], granularities: Sequence[Granularity], names: Sequence[str] | None = None
) -> list[Granularity]:
    """What each level of clusters stands for.

    Args:
        sizes: Numbers of clusters, coarsest first.
        granularities: Of the data set, coarsest first.
        names: Of one granularity per level; None for the nearest in number of classes.

    Raises:
        ValueError: A single granularity, unknown names, not one per level, or one that is coarser than that before.
    """
    known = {granularity.name: number for number, granularity in enumerate(granularities)}
    if len(known) < 2:
        raise ValueError(
            f'labels of one granularity ({", ".join(known)}) hold no tree; group the classes with --groups FILE.json'
        )
    if names is None:
        return granularity_of_levels(sizes, granularities)
    wrong = [name for name in names if name not in known]
    if wrong or len(names) != len(sizes):
        raise ValueError(f'--labels takes one of {list(known)} for each of {len(sizes)} levels; got {list(names)}')
    if any(known[fine] < known[coarse] for coarse, fine in pairwise(names)):
        raise ValueError(f'--labels must not get coarser from level to level; got {list(names)}')
    return [granularities[known[name]] for name in names]


def figure_titles(levels: Sequence[Granularity], granularities: Sequence[Granularity]) -> dict[str, str]:
    """The figures of `recover` worth a panel, with their titles."""
    titles = dict(
        agreement='parents right', pixel_agreement='parents right, by pixels',
        merged_agreement='parents right, merged',
    )  # fmt: skip
    titles |= {f'ari_{number}': f'ARI of the leaves, level {number}' for number in range(1, len(levels))}
    for number, level in enumerate(levels, start=1):
        if f'purity of the tree, {level.name}' not in titles.values():
            titles[f'purity_{number}'] = f'purity of the tree, {level.name}'
    return titles


def gains(
    rows: Sequence[dict[str, Any]], figures: Sequence[str], marginals: str = DEFAULT_MARGINALS
) -> list[dict[str, Any]]:
    """The plan of the learned clusters against every other method, run by run.

    Args:
        rows: Of `recover`.
        figures: Their figures to compare.
        marginals: Of the plan.

    Returns:
        Per other method the mean and spread over runs of the difference of each figure, positive where the plan is
        better, and ``runs``.
    """
    plan = (LEARNED, plan_method(marginals))
    learned = {(row['model'], row['run']): row for row in rows if (row['clusters'], row['parents']) == plan}
    differences = [
        {method: row[method] for method in METHOD}
        | {figure: learned[row['model'], row['run']][figure] - row[figure] for figure in figures}
        for row in rows
        if (row['model'], row['run']) in learned and (row['clusters'], row['parents']) != plan
    ]
    return summarise(differences, METHOD, figures) if differences else []


def _kmeans_variant(
    model: UnsupervisedSegmentor, config: Config, sizes: Sequence[int], options: RecoveryOptions
) -> UnsupervisedSegmentor:
    codes = collect_codes(model, config, 'train', options.code_images, options.per_image, options.seed)
    centres = [fit_centres(codes, size, options.seed) for size in sizes]
    weight = DEFAULT_ENTROPY_WEIGHT if model.omh_head is None else model.omh_head.plan.entropy_weight
    return with_centres(model, centres, weight)


def _score_methods(
    counted: LevelCounts, finest: np.ndarray, levels: Sequence[Granularity], options: RecoveryOptions
) -> list[dict[str, Any]]:
    sizes = [len(table) for table in counted.counts]
    by_plan = {kind: [parents.numpy() for parents in tree.parents] for kind, tree in counted.trees.items()}
    kinds = sorted(by_plan, key=lambda kind: kind != options.marginals)
    plan = by_plan[kinds[0]]
    trees = {plan_method(kind): (counted.counts, by_plan[kind]) for kind in kinds}
    trees[OVERLAP] = (counted.counts, overlap_parents(counted.overlaps))
    for linkage in LINKAGES:
        parents = agglomerated_parents(finest, sizes, linkage)
        trees[linkage] = (merged_counts(counted.counts[-1], parents, sizes), parents)
    rows: list[dict[str, Any]] = []
    for name, (counts, parents) in trees.items():
        scores = recovery_scores(counts, parents, levels)
        rows.append(dict(parents=name, used=scores.used, finest=sizes[-1]) | scores.figures())
    random_trees = chance_scores(counted.counts, plan, levels, options.permutations, options.seed)
    random = [scores.figures() for scores in random_trees]
    if random:
        for figure in ('agreement', 'merged_agreement'):
            at_least = sum(tree[figure] >= rows[0][figure] - 1e-12 for tree in random)
            rows[0][f'p_{figure}'] = (1 + at_least) / (1 + len(random))
        means = {figure: float(np.nanmean([tree[figure] for tree in random])) for figure in random[0]}
        rows.append(dict(parents=CHANCE, used=rows[0]['used'], finest=sizes[-1]) | means)
    return rows


def analyse_recovery(
    config: Config,
    checkpoints: Sequence[str],
    out: PathLike,
    options: RecoveryOptions,
    control: tuple[Config, Sequence[str]] | None = None,
    device: str | None = None,
) -> str:
    """The trees of every method against the known tree of classes.

    Args:
        config: Of the models and their data.
        checkpoints: Of one or several seeds.
        out: Folder of ``recovery.csv``, ``recovery.md``, ``gains.csv`` and ``recovery.png``.
        options: See `RecoveryOptions`.
        control: Config and checkpoints of another model, such as the host alone or OMH that does not reach the
            features, measured by the same methods.
        device: See `load_levels`.

    Returns:
        The table as text.
    """
    sizes = [len(centres) for centres in checkpoint_centres(checkpoints[0])[0]]
    granularities = finest_labels(split_dataset(config, options.split), options.groups)[1]
    levels = levels_as_labels(sizes, granularities, options.labels)
    rows = recover(config, checkpoints, options, device)
    if control is not None:
        rows += recover(control[0], control[1], options, device, 'control', sizes)
    titles = figure_titles(levels, granularities)
    summary = summarise(rows, METHOD if control is not None else METHOD[1:], ['used', *titles])
    means = with_spreads(summary, ['used', *titles], 3)
    shown = [{titles.get(key, key): value for key, value in row.items()} for row in means]
    differences = gains(rows, list(titles), options.marginals)
    meanings = [f'level {number}: {level.name}' for number, level in enumerate(levels, start=1)]
    text = f'Levels stand for {", ".join(meanings)}.\n\n{markdown_table(shown)}'
    out = Path(out)
    paths = [write_csv(out / 'recovery.csv', rows), write_text(out / 'recovery.md', f'{text}\n')]
    if differences:
        paths.append(write_csv(out / 'gains.csv', differences))
    paths.append(draw_recovery(out / 'recovery.png', rows, titles))
    return f'{text}\n\n{list_files(paths)}'
