"""Whether two runs learn the same clusters and the same tree.

Centres of two runs live in different codes, so that clusters are compared by the pixels that both runs give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from mmengine.config import Config

from omh_mmseg.analysis.level_counts import count_levels, labelled_loader, load_levels, run_names
from omh_mmseg.analysis.plan_trees import DEFAULT_MARGINALS
from omh_mmseg.evaluation.scores import adjusted_rand_index, hungarian_assignment, normalised_mutual_information
from omh_mmseg.structures.assignment import UNMATCHED
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.tables import PathLike, list_files, markdown_table, summarise, with_spreads, write_csv
from omh_mmseg.visualization.stability import draw_stability


@dataclass(frozen=True)
class LevelStability:
    """Agreement of the clusters of one level in two runs.

    Attributes:
        level: 1 is the coarsest.
        partner: (K_a,) cluster of the other run that each cluster is matched to; ``UNMATCHED`` for those left over and
            for pairs without a common pixel.
        overlap: Share of all pixels that lie in matched clusters of both runs, in [0, 1].
        nmi: Normalised mutual information of the two segmentations.
        ari: Their adjusted Rand index, 0 by chance.
        used: Clusters with pixels, in the first and in the second run.
    """

    level: int
    partner: np.ndarray
    overlap: float
    nmi: float
    ari: float
    used: tuple[int, int]


@dataclass(frozen=True)
class ParentStability:
    """Agreement of the parents of one level pair in two runs.

    Attributes:
        levels: Numbers of the coarser and the finer level.
        agreement: Share of the matched finer clusters whose parents are matched, too; NaN without any.
        chance: The same, expected if the parents of the second run were dealt to its clusters at random.
        p_value: Share of random deals that agree at least as much, with the observed one among them.
        compared: Number of matched finer clusters.
    """

    levels: tuple[int, int]
    agreement: float
    chance: float
    p_value: float
    compared: int


def compare_runs(
    joint: Sequence[np.ndarray],
    first_parents: Sequence[np.ndarray],
    second_parents: Sequence[np.ndarray],
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[list[LevelStability], list[ParentStability]]:
    """Match the clusters of two runs level by level, then compare the parents of matched clusters.

    Args:
        joint: Per level, coarsest first, the pixels of each pair of clusters, (K_l of the first, K_l of the second).
        first_parents: Per level pair the parents of the finer clusters of the first run, (K_{l+1},).
        second_parents: Those of the second run.
        permutations: Random deals behind the p-values.
        seed: Of these deals.

    Returns:
        One entry per level, and one per level pair.

    Raises:
        ValueError: If numbers of levels or clusters do not fit.
    """
    joint = [np.asarray(counts) for counts in joint]
    for name, parents, axis in (('first', first_parents, 0), ('second', second_parents, 1)):
        sizes = [counts.shape[axis] for counts in joint]
        children = [len(level) for level in parents]
        if children != sizes[1:]:
            raise ValueError(
                f'parents of {children} clusters in the {name} run do not fit its levels of {sizes} clusters'
            )
    levels = [_match(number, counts) for number, counts in enumerate(joint, start=1)]
    generator = np.random.default_rng(seed)
    pairs = []
    for number, (coarse, fine) in enumerate(zip(levels, levels[1:])):
        matched = np.flatnonzero(fine.partner != UNMATCHED)
        # Where the first run's parent has no partner, no parent in the second run is right.
        expected = coarse.partner[np.asarray(first_parents[number])[matched]]
        actual = np.asarray(second_parents[number])[fine.partner[matched]]
        pairs.append(_against_chance((number + 1, number + 2), expected, actual, permutations, generator))
    return levels, pairs


def _match(level: int, counts: np.ndarray) -> LevelStability:
    partner = hungarian_assignment(counts)
    common = counts[np.arange(len(counts)), partner] * (partner != UNMATCHED)
    return LevelStability(
        level=level,
        partner=np.where(common > 0, partner, UNMATCHED),
        overlap=float(common.sum() / counts.sum()) if counts.any() else float('nan'),
        nmi=normalised_mutual_information(counts),
        ari=adjusted_rand_index(counts),
        used=(int(counts.any(axis=1).sum()), int(counts.any(axis=0).sum())),
    )


def _against_chance(
    levels: tuple[int, int], expected: np.ndarray, actual: np.ndarray, permutations: int, generator: np.random.Generator
) -> ParentStability:
    if not len(expected):
        return ParentStability(levels, float('nan'), float('nan'), float('nan'), 0)
    agreement = float((expected == actual).mean())
    permuted = generator.permuted(np.tile(actual, (permutations, 1)), axis=1)
    at_least = ((permuted == expected).mean(axis=1) >= agreement - 1e-12).sum()
    return ParentStability(
        levels=levels,
        agreement=agreement,
        chance=float((expected[:, None] == actual[None, :]).mean()),
        p_value=float((1 + at_least) / (1 + permutations)),
        compared=len(expected),
    )


def analyse_stability(
    config: Config,
    checkpoints: Sequence[str],
    out: PathLike,
    split: str = 'val',
    images: int | None = None,
    permutations: int = 1000,
    device: str | None = None,
    marginals: str = DEFAULT_MARGINALS,
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
        marginals: Of the plans of the trees in the picture; the tables have all, see `plan_trees`.

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
    kinds = [kind for kind in counted.models[0].trees if all(kind in model.trees for model in counted.models)]
    kinds = sorted(kinds, key=lambda kind: kind != marginals)
    clusters, parents, matches = [], [], []
    for a, b in combinations(range(len(models)), 2):
        pair = dict(first=names[a], second=names[b])
        for kind in kinds:
            trees = (counted.models[number].trees[kind] for number in (a, b))
            first, second = ([level.numpy() for level in tree.parents] for tree in trees)
            levels, pairs = compare_runs(counted.joint[a, b], first, second, permutations)
            parents += [
                pair | dict(marginals=kind) | asdict(scores) | dict(levels='-'.join(map(str, scores.levels)))
                for scores in pairs
            ]
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
    figures: tuple[str, ...] = ('overlap', 'nmi', 'ari', 'used_first', 'used_second', 'matched')
    tables = [with_spreads(summarise(clusters, ('level',), figures), figures, 2)]
    paths = [write_csv(out / 'clusters.csv', clusters)]
    if matches:
        paths.append(write_csv(out / 'matches.csv', matches))
    if parents:
        paths.append(write_csv(out / 'parents.csv', parents))
        figures = ('agreement', 'chance', 'p_value', 'compared')
        tables.append(with_spreads(summarise(parents, ('marginals', 'levels'), figures), figures, 3))
    text = '\n\n'.join(
        markdown_table([{'pairs' if key == 'runs' else key: value for key, value in row.items()} for row in rows])
        for rows in tables
    )
    paths.append(write_text(out / 'stability.md', f'{text}\n'))
    drawn = [row for row in parents if row['marginals'] == marginals]
    paths.append(draw_stability(out / 'stability.png', names, clusters, drawn))
    return f'{text}\n\n{list_files(paths)}'
