"""How sparse the plans are: over the steps of a training, and against the entropy weight."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor

from omh_mmseg.analysis.level_counts import run_names
from omh_mmseg.models.omh.parts import rename_old_keys
from omh_mmseg.models.omh.plan_solver import PlanSolver
from omh_mmseg.models.utils.loaded_weights import not_finite, tensors_of
from omh_mmseg.transport import diagnose_plan, hierarchy_plans
from omh_mmseg.utils.tables import PathLike, list_files, markdown_table, summarise, with_spreads, write_csv
from omh_mmseg.utils.text import first_few
from omh_mmseg.visualization.plan_curves import draw_plan_sweep, draw_plan_training

PREFIX = 'omh_'
DEFAULT_ENTROPY_WEIGHT: float = inspect.signature(PlanSolver).parameters['entropy_weight'].default
_HEAD = 'omh_head.'
_CENTRES = 'omh_head.centres.'
_MARGINAL = 'omh_head.plan.marginal_'


def training_figures(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a run logged of its plans and clusters, step by step.

    Args:
        run: Its work directory. Where a run was continued, all its logs count; a step that was done again counts as
            it was done last.

    Returns:
        Rows with ``step`` and the ``omh_*`` figures without that prefix (docs/methods/omh.md 4): ``used_<level>``,
        ``sparsity_<pair>``, ``parents_mean_<pair>``, ``parents_max_<pair>``, ``violation_<pair>``,
        ``iterations_<pair>``.

    Raises:
        FileNotFoundError: The folder holds no log of figures.
        ValueError: Its logs hold no figures of OMH.
    """
    files = sorted(Path(run).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'{run} holds no */vis_data/scalars.json; give the work directory of a training')
    by_step: dict[int, dict[str, Any]] = {}
    for file in files:
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            figures = {key.removeprefix(PREFIX): value for key, value in entry.items() if key.startswith(PREFIX)}
            if figures:
                by_step[int(entry['step'])] = figures
    if not by_step:
        raise ValueError(f'{run} logged no figures of OMH; train a config with model.omh_head')
    return [dict(step=step, **by_step[step]) for step in sorted(by_step)]


def run_entropy_weight(run: str | os.PathLike[str]) -> float:
    """Entropy weight of a run, from the config that it saved beside its figures; NaN where none of them has OMH."""
    for file in sorted(Path(run).glob('*/vis_data/config.py'), reverse=True):
        head = Config.fromfile(str(file)).get('model', {}).get('omh_head') or {}
        for options in (head.get('plan') or {}, head):  # of this version, and of 0.1
            if 'entropy_weight' in options:
                return float(options['entropy_weight'])
        if head:
            return DEFAULT_ENTROPY_WEIGHT
    return float('nan')


def checkpoint_centres(path: str | os.PathLike[str]) -> tuple[list[Tensor], list[Tensor] | None]:
    """Centres of all levels of a checkpoint, coarsest first, and their marginals where it keeps any.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The checkpoint has no OMH head, lacks a level, or is not finite.
    """
    path = os.fspath(path)
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}')
    loaded = _load_checkpoint(path, map_location='cpu')
    weights = tensors_of(loaded.get('state_dict', loaded), path)
    rename_old_keys(weights, _HEAD)

    def numbered(prefix: str) -> list[Tensor]:
        keys = {key for key in weights if key.startswith(prefix)}
        expected = [f'{prefix}{level}' for level in range(len(keys))]
        if keys != set(expected):
            there = ', '.join(sorted(keys))
            raise ValueError(f'{path} lacks a level: of {prefix}* it has {there}. Use the checkpoint of a run.')
        return [weights[key] for key in expected]

    centres = numbered(_CENTRES)
    if not centres:
        raise ValueError(
            f'{path} has no weights {_CENTRES}*; it is no checkpoint of a model with model.omh_head. '
            'Use one of a run with OMH.'
        )
    infinite = not_finite({key: weights[key] for key in weights if key.startswith(_HEAD)})
    if infinite:
        raise ValueError(
            f'{path} has {len(infinite)} weights that are not finite: {first_few(infinite)}. Use an earlier checkpoint '
            'of its run.'
        )
    return centres, numbered(_MARGINAL) or None


def figures_by_entropy_weight(
    centres: Sequence[Tensor],
    entropy_weights: Sequence[float],
    marginals: Sequence[Tensor] | None = None,
    max_iterations: int = 20000,
) -> list[dict[str, Any]]:
    """Solve the plans between given centres at several entropy weights.

    The centres are those of a finished training at one weight, so that this shows what the plan makes of a geometry,
    not what a training at another weight would have learned.

    Args:
        centres: (K_l, D) per level, coarsest first.
        entropy_weights: Values of lambda.
        marginals: (K_l,) per level; uniform if None.
        max_iterations: Small weights need many.

    Returns:
        Rows with ``entropy_weight``, ``levels`` (such as ``'12'``), ``coarse`` and ``fine`` (numbers of clusters) and
        the figures of `omh_mmseg.transport.PlanDiagnostics`. Where the solver breaks down they are absent and
        ``error`` says why.
    """
    rows = []
    for weight in entropy_weights:
        for level, pair in enumerate(zip(centres, centres[1:])):
            names = dict(entropy_weight=float(weight), levels=f'{level + 1}{level + 2}')
            row: dict[str, Any] = dict(names, coarse=len(pair[0]), fine=len(pair[1]))
            masses = None if marginals is None else marginals[level : level + 2]
            try:
                with torch.no_grad():
                    (plan,) = hierarchy_plans(list(pair), weight, masses, max_iterations=max_iterations)
                row |= asdict(diagnose_plan(plan))
            except FloatingPointError as error:
                row['error'] = str(error)
            rows.append(row)
    return rows


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
    solvable = [checkpoint_centres(checkpoint) for checkpoint in checkpoints]
    out, texts = Path(out), []
    names = run_names([str(Path(run) / 'log') for run in runs])
    logged = {name: training_figures(run) for name, run in zip(names, runs)}
    weights = {name: run_entropy_weight(run) for name, run in zip(names, runs)}
    ends: list[dict[str, Any]] = []
    if logged:
        rows = [dict(run=name, entropy_weight=weights[name]) | row for name, steps in logged.items() for row in steps]
        paths = [write_csv(out / 'training.csv', rows), draw_plan_training(out / 'training.png', logged)]
        ends = [row for name in logged for row in _last_figures(name, weights[name], logged[name][-1])]
        texts += ['at the end of the training', markdown_table(ends, 3), list_files(paths), '']
    solved: list[dict[str, Any]] = []
    for name, (centres, marginals) in zip(run_names(checkpoints), solvable):
        figures = figures_by_entropy_weight(centres, sorted(entropy_weights), marginals)
        solved += [dict(run=name) | row for row in figures]
    trained = [row for row in ends if row['entropy_weight'] == row['entropy_weight']]
    if solved or len({row['entropy_weight'] for row in trained}) > 1:
        rows = [dict(source='solved anew') | row for row in solved] + [dict(source='trained') | row for row in trained]
        paths = [
            write_csv(out / 'entropy_weight.csv', rows),
            draw_plan_sweep(out / 'entropy_weight.png', solved, trained),
        ]
        means = summarise([row for row in rows if 'sparsity' in row], ('source', 'entropy_weight', 'levels'),
                          PLAN_FIGURES[:4])  # fmt: skip
        texts += [
            'by entropy weight (mean +- standard deviation over runs)',
            markdown_table(with_spreads(means, PLAN_FIGURES[:4]), 3), list_files(paths), '',
        ]  # fmt: skip
    return '\n'.join(texts)


def _last_figures(name: str, weight: float, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The last logged figures of a run, one row per pair of levels."""
    pairs = [key.removeprefix('sparsity_') for key in row if key.startswith('sparsity_')]
    return [
        dict(run=name, entropy_weight=weight, levels=pair)
        | {figure: row[f'{figure}_{pair}'] for figure in PLAN_FIGURES if f'{figure}_{pair}' in row}
        for pair in pairs
    ]
