"""SmooSeg with OMH through the commands: training without labels, resuming, scoring."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch


@pytest.fixture
def options(demo) -> dict[str, object]:
    """The scaled-down demo, for single images instead of pairs."""
    renamed = {key.replace('train_dataloader.dataset.dataset.', 'train_dataloader.dataset.'): value
               for key, value in demo.options.items()}  # fmt: skip
    return {key: value for key, value in renamed.items() if key != 'train_dataloader.dataset.index'}


@pytest.mark.slow
def test_train_resume_test(tmp_path: Path, run, command, demo, options) -> None:
    config = demo.config.with_name('omh_smooseg_vit-t8_demo.py')
    words = command('train.py', config, '--work-dir', tmp_path / 'run', options=options)
    run(tmp_path, words)
    states = [torch.load(tmp_path / f'run/iter_{step}.pth', weights_only=False)['state_dict'] for step in (2, 4)]
    student, teacher = ([state[f'cluster_probe.{name}'] for state in states] for name in ('student', 'centres'))
    assert not torch.equal(*student) and not torch.equal(*teacher)
    resumed = command('train.py', config, '--work-dir', tmp_path / 'run', '--resume',
                      options=options | {'train_cfg.max_iters': 6, 'train_cfg.val_interval': 6})  # fmt: skip
    log = run(tmp_path, resumed)
    assert re.search(r'resumed.*iter: 4', log)
    figures = [json.loads(line) for path in (tmp_path / 'run').glob('*/vis_data/scalars.json')
               for line in path.read_text().splitlines()]  # fmt: skip
    steps = [line for line in figures if 'loss_data' in line]
    assert sorted(line['step'] for line in steps) == [1, 2, 3, 4, 5, 6]
    assert all({'loss_within', 'loss_across', 'omh_used_3'} <= line.keys() for line in steps)
    assert {line['step'] for line in steps if 'loss_omh_match' in line} == {3, 4, 5, 6}
    # The demo's centres follow their positions: there is nothing that they minimise.
    assert not any('loss_omh_centre' in line for line in steps)
    scored = next(line for line in figures if 'probe/mIoU' in line and line['step'] == 6)
    tested = run(tmp_path, command('test.py', config, tmp_path / 'run/iter_6.pth', options=options))
    assert float(re.findall(r'probe/mIoU: ([\d.]+)', tested)[-1]) == pytest.approx(scored['probe/mIoU'], abs=1e-3)
