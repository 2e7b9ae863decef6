"""Figures of plans from logs, configs and checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from omh_mmseg.analysis.plans import (
    DEFAULT_ENTROPY_WEIGHT,
    checkpoint_centres,
    figures_by_entropy_weight,
    run_entropy_weight,
    training_figures,
)


def log(run: Path, stamp: str, lines: list[dict], config: str = '') -> None:
    folder = run / stamp / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    if config:
        (folder / 'config.py').write_text(config)


def test_a_continued_run_counts_as_it_was_done_last(tmp_path: Path):
    log(tmp_path, '20260101_000000', [dict(step=1, omh_sparsity_12=0.9), dict(step=2, omh_sparsity_12=0.8)])
    log(tmp_path, '20260101_000100', [
        dict(step=2, omh_sparsity_12=0.7, loss=1.0), dict(step=3, omh_sparsity_12=0.6), {'probe/mIoU': 1.0, 'step': 4},
    ])  # fmt: skip
    assert training_figures(tmp_path) == [
        dict(step=1, sparsity_12=0.9), dict(step=2, sparsity_12=0.7), dict(step=3, sparsity_12=0.6)
    ]  # fmt: skip


def test_runs_without_figures(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match='holds no .*scalars.json'):
        training_figures(tmp_path)
    log(tmp_path, 'a', [dict(step=1, loss=1.0)])
    with pytest.raises(ValueError, match='logged no figures of OMH'):
        training_figures(tmp_path)


def test_entropy_weight_is_that_of_the_saved_config(tmp_path: Path):
    assert math.isnan(run_entropy_weight(tmp_path))
    log(tmp_path, 'a', [], 'model = dict(omh_head=dict(plan=dict(entropy_weight=0.02)))\n')
    assert run_entropy_weight(tmp_path) == 0.02
    log(tmp_path, 'b', [], 'model = dict(omh_head=None)\n')
    assert run_entropy_weight(tmp_path) == 0.02
    log(tmp_path, 'c', [], "model = dict(omh_head=dict(type='OMHHead'))\n")
    assert run_entropy_weight(tmp_path) == DEFAULT_ENTROPY_WEIGHT == 0.05


def test_centres_of_a_checkpoint_in_the_order_of_levels(tmp_path: Path):
    path = tmp_path / 'a.pth'
    weights = {f'omh_head.centres.{level}': torch.full((level + 1, 2), float(level)) for level in range(11)}
    torch.save(dict(state_dict=dict(reversed(weights.items())), meta={}), path)
    centres, marginals = checkpoint_centres(path)
    assert [len(own) for own in centres] == list(range(1, 12)) and marginals is None
    torch.save({**weights, 'omh_head.marginal_0': torch.ones(1)}, path)
    assert checkpoint_centres(path)[1][0].tolist() == [1.0]
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), path)
    with pytest.raises(ValueError, match='no weights omh_head.centres'):
        checkpoint_centres(path)
    with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
        checkpoint_centres(tmp_path / 'absent.pth')


def test_small_weights_give_one_parent_and_large_ones_all():
    coarse = torch.eye(4)
    fine = coarse.repeat_interleave(2, 0) + 0.01 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    rows = figures_by_entropy_weight([coarse, fine], [0.01, 0.1, 10.0])
    assert [row['entropy_weight'] for row in rows] == [0.01, 0.1, 10.0]
    assert all((row['levels'], row['coarse'], row['fine']) == ('12', 4, 8) for row in rows)
    assert rows[0]['parents_mean'] == pytest.approx(1, abs=1e-3) and rows[0]['sparsity'] == 0.25
    assert rows[2]['parents_mean'] == pytest.approx(4, abs=0.02) and rows[2]['sparsity'] == 1
    assert rows[0]['parents_max'] < rows[1]['parents_max'] < rows[2]['parents_max']


def test_marginals_and_breakdowns():
    coarse, fine = torch.eye(2), torch.eye(2)
    uneven = [torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.9])]
    (row,) = figures_by_entropy_weight([coarse, fine], [0.01], uneven)
    assert row['parents_mean'] > 1.1
    (row,) = figures_by_entropy_weight([coarse * torch.nan, fine], [0.01])
    assert 'not finite' in row['error'] and 'sparsity' not in row
