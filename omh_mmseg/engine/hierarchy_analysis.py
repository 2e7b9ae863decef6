"""The analyses of learned hierarchies: each computes its tables, writes them with their pictures and says them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from mmengine.config import Config

from omh_mmseg.datasets.granularity import finest_labels
from omh_mmseg.engine.fit_assignment import split_dataset
from omh_mmseg.engine.hierarchy_recovery import (
    RecoveryOptions,
    figure_titles,
    gains,
    levels_as_labels,
    recover,
)
from omh_mmseg.engine.level_predictions import count_levels, labelled_loader, load_levels, run_names
from omh_mmseg.evaluation.hierarchy_stability import compare_runs
from omh_mmseg.evaluation.level_scores import FIGURES, level_scores
from omh_mmseg.evaluation.matching import UNMATCHED
from omh_mmseg.evaluation.part_whole import class_rows, class_summary, cluster_rows
from omh_mmseg.evaluation.plan_figures import (
    checkpoint_centres,
    figures_by_entropy_weight,
    run_entropy_weight,
    training_figures,
)
from omh_mmseg.evaluation.tables import (
    markdown_table,
    summarise,
    with_spreads,
    write_csv,
    write_markdown,
    write_text,
)
from omh_mmseg.visualization import draw_hierarchy_tree
from omh_mmseg.visualization.level_scores import draw_level_scores
from omh_mmseg.visualization.part_whole import draw_part_whole
from omh_mmseg.visualization.plan_curves import draw_plan_sweep, draw_plan_training
from omh_mmseg.visualization.recovery import draw_recovery
from omh_mmseg.visualization.stability import draw_stability

PathLike = str | os.PathLike[str]
PLAN_FIGURES = ('sparsity', 'parents_mean', 'parents_max', 'violation', 'iterations')


def analyse_plans(
    out: PathLike, runs: Sequence[str] = (), checkpoints: Sequence[str] = (), entropy_weights: Sequence[float] = ()
) -> str:
    """Sparsity and effective parents over the training of runs, and against the entropy weight.

    Args:
        out: Folder of ``training.csv`` and ``training.png`` (with runs), ``entropy_weight.csv`` and
            ``entropy_weight.png`` (with checkpoints, or runs of several weights).
        runs: Work directories of trainings.
        checkpoints: Checkpoints whose plans are solved anew.
        entropy_weights: At these weights.

    Returns:
        The tables as text.

    Raises:
        FileNotFoundError: A run without log, or an absent checkpoint.
        ValueError: Neither runs nor checkpoints, checkpoints without weights, or files without OMH.
    """
    if not runs and not checkpoints:
        raise ValueError('give runs (work directories), checkpoints, or both')
    if checkpoints and not entropy_weights:
        raise ValueError('checkpoints are solved at --entropy-weights; give some, such as 0.01 0.05 0.1')
    out, said = Path(out), []
    names = run_names([str(Path(run) / 'log') for run in runs])
    logged = {name: training_figures(run) for name, run in zip(names, runs)}
    weights = {name: run_entropy_weight(run) for name, run in zip(names, runs)}
    ends: list[dict[str, Any]] = []
    if logged:
        rows = [
            dict(run=name, entropy_weight=weights[name]) | row for name, steps in logged.items() for row in steps
        ]
        written = [write_csv(out / 'training.csv', rows), draw_plan_training(out / 'training.png', logged)]
        ends = [row for name in logged for row in _last_figures(name, weights[name], logged[name][-1])]
        said += ['at the end of the training', markdown_table(ends, 3), _written(written), '']
    solved: list[dict[str, Any]] = []
    for name, checkpoint in zip(run_names(checkpoints), checkpoints):
        centres, marginals = checkpoint_centres(checkpoint)
        figures = figures_by_entropy_weight(centres, sorted(entropy_weights), marginals)
        solved += [dict(run=name) | row for row in figures]
    trained = [row for row in ends if row['entropy_weight'] == row['entropy_weight']]
    if solved or len({row['entropy_weight'] for row in trained}) > 1:
        rows = [dict(source='solved anew') | row for row in solved] + [dict(source='trained') | row for row in trained]
        written = [
            write_csv(out / 'entropy_weight.csv', rows),
            draw_plan_sweep(out / 'entropy_weight.png', solved, trained),
        ]
        means = summarise([row for row in rows if 'sparsity' in row], ('source', 'entropy_weight', 'levels'),
                          PLAN_FIGURES[:4])  # fmt: skip
        said += [
            'by entropy weight (mean +- standard deviation over runs)',
            markdown_table(with_spreads(means, PLAN_FIGURES[:4]), 3), _written(written), '',
        ]  # fmt: skip
    return '\n'.join(said)


def analyse_stability(
    config: Config,
    checkpoints: Sequence[str],
    out: PathLike,
    split: str = 'val',
    images: int | None = None,
    permutations: int = 1000,
    device: str | None = None,
) -> str:
    """Clusters and parents of all pairs of checkpoints, compared by their predictions.

    Args:
        config: Of the models and their data; labels are not needed.
        checkpoints: Two at least, such as those of several seeds.
        out: Folder of ``clusters.csv``, ``parents.csv``, ``matches.csv``, ``stability.md`` and ``stability.png``.
        split: Images to compare on.
        images: Only the first so many.
        permutations: Random deals of the parents behind the p-values.
        device: See `load_levels`.

    Returns:
        The tables as text.

    Raises:
        ValueError: Fewer than two checkpoints, or models without levels.
    """
    if len(checkpoints) < 2:
        raise ValueError(f'two checkpoints at least are needed to compare; got {len(checkpoints)}')
    loader, granularities = labelled_loader(config, split, images)
    models = [load_levels(config, checkpoint, device) for checkpoint in checkpoints]
    counted = count_levels([[model] for model in models], loader, len(granularities[-1].table), between=True)
    names, out = run_names(checkpoints), Path(out)
    clusters, parents, matches = [], [], []
    for a, b in combinations(range(len(models)), 2):
        first, second = ([own.numpy() for own in counted.models[number].hierarchy.parents] for number in (a, b))
        levels, pairs = compare_runs(counted.joint[a, b], first, second, permutations)
        pair = dict(first=names[a], second=names[b])
        for level in levels:
            matched = int((level.partner != UNMATCHED).sum())
            clusters.append(
                dict(pair, level=level.level, overlap=level.overlap, nmi=level.nmi, ari=level.ari,
                     used_first=level.used[0], used_second=level.used[1], matched=matched)
            )  # fmt: skip
            matches += [
                dict(pair, level=level.level, cluster=cluster, partner=int(partner))
                for cluster, partner in enumerate(level.partner) if partner != UNMATCHED
            ]  # fmt: skip
        parents += [
            dict(pair, levels='-'.join(map(str, one.levels)), agreement=one.agreement, chance=one.chance,
                 p_value=one.p_value, compared=one.compared)
            for one in pairs
        ]  # fmt: skip
    figures: tuple[str, ...] = ('overlap', 'nmi', 'ari', 'used_first', 'used_second', 'matched')
    tables = [with_spreads(summarise(clusters, ('level',), figures), figures, 2)]
    written = [write_csv(out / 'clusters.csv', clusters)]
    if matches:
        written.append(write_csv(out / 'matches.csv', matches))
    if parents:
        written.append(write_csv(out / 'parents.csv', parents))
        figures = ('agreement', 'chance', 'p_value', 'compared')
        tables.append(with_spreads(summarise(parents, ('levels',), figures), figures, 3))
    text = '\n\n'.join(
        markdown_table([{'pairs' if key == 'runs' else key: value for key, value in row.items()} for row in rows])
        for rows in tables
    )
    written.append(write_text(out / 'stability.md', text))
    written.append(draw_stability(out / 'stability.png', names, clusters, parents))
    return f'{text}\n\n{_written(written)}'


def analyse_parts(
    config: Config,
    checkpoint: str,
    out: PathLike,
    split: str = 'val',
    images: int | None = None,
    groups: str | None = None,
    labels: str | None = None,
    device: str | None = None,
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

    Returns:
        The table of classes as text.

    Raises:
        ValueError: An unknown granularity, or a model without levels.
    """
    loader, granularities = labelled_loader(config, split, images, groups)
    known = {one.name: one for one in granularities}
    if labels is not None and labels not in known:
        raise ValueError(f'--labels must be one of {list(known)}; got {labels!r}')
    chosen = known[labels] if labels is not None else granularities[-1]
    model = load_levels(config, checkpoint, device)
    (counted,) = count_levels([[model]], loader, len(chosen.table)).models
    counts = [chosen.merge(own) for own in counted.counts]
    hierarchy, classes, out = counted.hierarchy, chosen.classes, Path(out)
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
    written = [
        write_csv(out / 'clusters.csv', rows),
        *([write_csv(out / 'classes.csv', by_class)] if by_class else []),
        write_text(out / 'part_whole.md', text),
        draw_part_whole(out / 'part_whole.png', hierarchy, counts[-1], classes),
        draw_hierarchy_tree(out / 'tree.png', hierarchy, usage=[own.sum(1) for own in counts], names=names),
    ]
    return f'{markdown_table(summary)}\n\n{_written(written)}'


def analyse_scores(
    config: Config,
    checkpoints: Sequence[str],
    out: PathLike,
    split: str = 'val',
    images: int | None = None,
    groups: str | None = None,
    device: str | None = None,
) -> str:
    """Every level, and the host's probe, against labels of every granularity.

    Args:
        config: Of the models and their data.
        checkpoints: Of one or several seeds.
        out: Folder of ``scores.csv``, ``level_scores.md`` and ``level_scores.png``.
        split: Labelled images.
        images: Only the first so many.
        groups: See `omh_mmseg.datasets.granularity.read_groups`.
        device: See `load_levels`.

    Returns:
        The table as text.
    """
    loader, granularities = labelled_loader(config, split, images, groups)
    models = [load_levels(config, checkpoint, device) for checkpoint in checkpoints]
    counted = count_levels([[model] for model in models], loader, len(granularities[-1].table))
    rows = [
        dict(run=name) | row
        for name, own in zip(run_names(checkpoints), counted.models)
        for row in level_scores(own.heads, granularities)
    ]
    summary, out = summarise(rows, ('head', 'clusters', 'labels', 'classes'), FIGURES), Path(out)
    shown = with_spreads(summary, FIGURES, 2)
    written = [
        write_csv(out / 'scores.csv', rows),
        write_markdown(out / 'level_scores.md', shown),
        draw_level_scores(out / 'level_scores.png', summary),
    ]
    return f'{markdown_table(shown)}\n\n{_written(written)}'


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
    by = ('model', 'clusters', 'parents') if control is not None else ('clusters', 'parents')
    summary = summarise(rows, by, ['used', *titles])
    shown = [
        {titles.get(key, key): value for key, value in row.items()}
        for row in with_spreads(summary, ['used', *titles], 3)
    ]
    differences = gains(rows, list(titles))
    told = [f'level {number}: {one.name}' for number, one in enumerate(levels, start=1)]
    text = f'Levels stand for {", ".join(told)}.\n\n{markdown_table(shown)}'
    out = Path(out)
    written = [write_csv(out / 'recovery.csv', rows), write_text(out / 'recovery.md', text)]
    if differences:
        written.append(write_csv(out / 'gains.csv', differences))
    written.append(draw_recovery(out / 'recovery.png', rows, titles))
    return f'{text}\n\n{_written(written)}'


def _last_figures(name: str, weight: float, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The last logged figures of a run, one row per pair of levels."""
    pairs = [key.removeprefix('sparsity_') for key in row if key.startswith('sparsity_')]
    return [
        dict(run=name, entropy_weight=weight, levels=pair)
        | {figure: row[f'{figure}_{pair}'] for figure in PLAN_FIGURES if f'{figure}_{pair}' in row}
        for pair in pairs
    ]


def _written(paths: Sequence[Path]) -> str:
    return f'written: {", ".join(map(str, paths))}'
