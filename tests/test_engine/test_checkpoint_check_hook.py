"""Runs of mmengine's runner that start from checkpoints, go on from them, or are refused."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils.data import Dataset

import omh_mmseg  # noqa: F401
from omh_mmseg.checkpoint_files import CheckpointError
from omh_mmseg.engine.hooks import CheckpointCheckHook
from omh_mmseg.engine.hooks.checkpoint_check_hook import optimizer_problem
from omh_mmseg.registry import MODELS

VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=12, num_layers=1, num_heads=3, feedforward_channels=24),
    img_size=32, patch_size=8, out_type='featmap',
)  # fmt: skip
MODEL = dict(
    num_classes=4,
    data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3),
    backbone=dict(type='FrozenBackbone', backbone=VIT),
    decode_head=dict(type='ProjectionHead', channels=5),
    omh_head=dict(type='OMHHead', reach=dict(begin=2)),
)
HP = dict(
    type='HiddenPositives', cluster_probe=dict(type='ClusterProbe'), linear_probe=dict(type='LinearProbe'),
    hidden_positive_loss=dict(type='HiddenPositiveLoss', temperature=0.6, random_negatives=0.3, consistency_weight=0.0),
    pool_size=6,
)  # fmt: skip
SMOOSEG = dict(
    type='SmooSeg', cluster_probe=dict(type='PrototypeHead'),
    smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=-0.02, across_shift=0.5),
)  # fmt: skip
HP_HOOKS = [dict(type='RandomStateHook'), dict(type='ReferencePoolHook', renew_interval=2)]


class Pictures(Dataset):
    """Random 32 x 32 pictures with labels."""

    metainfo = dict(classes=('a', 'b', 'c', 'd'), palette=[[0, 0, 0], [9, 9, 9], [99, 99, 99], [199, 199, 199]])

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        label = torch.randint(0, 4, (1, 32, 32), generator=generator)
        info = dict(img_path=f'{index}.png', img_shape=(32, 32), ori_shape=(32, 32))
        return dict(inputs=image, data_samples=SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=info))


@pytest.fixture(autouse=True)
def scope(mmseg_scope: None) -> None:
    """mmseg's registries and a fixed seed."""


class Starts(Hook):
    """Keeps the centres of OMH's finest level when each step begins, and the run's state when the first does."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.centres: dict[int, torch.Tensor] = {}
        self.first: dict[str, torch.Tensor] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.first = self.first or {key: value.clone() for key, value in runner.model.state_dict().items()}
        if getattr(runner.model, 'omh_head', None) is not None:
            self.centres[runner.iter] = runner.model.omh_head.centres[-1].detach().clone()


COUNT = iter(range(10**6))


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Runner]:
    """``build(work_dir, steps=4, host=HP, hooks=HP_HOOKS, check=dict(), checkpoint=dict(), parts..., **runner)``."""

    def runner_of(
        work_dir: str, steps: int = 4, host: dict = HP, hooks: list = HP_HOOKS, check: dict | None = None,
        checkpoint: dict | None = None, parts: dict | None = None, optimizer: dict | None = None, seed: int = 7,
        **options: Any,
    ) -> Runner:  # fmt: skip
        torch.manual_seed(seed)
        model: nn.Module = MODELS.build({**copy.deepcopy(MODEL), **copy.deepcopy(host), **(parts or {})})
        model.init_weights()
        loader = dict(
            batch_size=4, num_workers=0, dataset=Pictures(), sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate'), drop_last=True,
        )  # fmt: skip
        config = Config(dict(name=f'run {steps} {sorted(parts or {})}'), cfg_text='#', filename='config.py')
        once = dict(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False)
        return Runner(
            model=model, work_dir=str(tmp_path / work_dir), train_dataloader=loader, cfg=config,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=1000),
            test_dataloader=loader | once, test_cfg=dict(type='TestLoop'),
            test_evaluator=dict(type='UnsupervisedIoUMetric'),
            optim_wrapper=dict(
                type='OptimWrapper', constructor='TrainableOptimWrapperConstructor',
                optimizer=optimizer or dict(type='Adam', lr=1e-2),
            ),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2) | (checkpoint or {}),
                logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
                checkpoint_check=dict(type='CheckpointCheckHook') | (check or {}),
            ),
            custom_hooks=copy.deepcopy(hooks), log_processor=dict(by_epoch=False), log_level='ERROR',
            default_scope='mmseg', randomness=dict(seed=3), experiment_name=f'{tmp_path.name}_{next(COUNT)}', **options,
        )  # fmt: skip

    return runner_of


def state_of(runner: Runner) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in runner.model.state_dict().items()}


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refusal(runner: Runner) -> str:
    with pytest.raises(CheckpointError) as error:
        runner.train()
    assert '\n' not in str(error.value)
    return str(error.value)


# ---- a new run and a resumed one


def test_load_from_starts_a_new_run(build, tmp_path):
    """Of the finished run it has what was learned, and nothing else: pools, steps, the start of OMH's centres."""
    first, trained = Starts(), Starts()
    runner = build('first')
    runner.register_hook(first)
    runner.train()
    second = build('second', load_from=str(tmp_path / 'first' / 'iter_4.pth'), seed=8)
    second.register_hook(trained)
    second.train()
    finished, begun = state_of(runner), trained.first
    assert int(finished['iteration']) == 4 and int(begun['iteration']) == 0 and int(second.model.iteration) == 4
    assert torch.equal(begun['decode_head.linear.weight'], finished['decode_head.linear.weight'])
    assert torch.equal(begun['omh_head.centres.2'], finished['omh_head.centres.2'])
    assert not begun['omh_head.rule.start.pool'].any() and not begun['omh_head.plan.row_potential_0'].any()
    assert int(finished['ema_head.steps']) == 4 and int(begun['ema_head.steps']) == 0
    assert torch.equal(begun['ema_head.module.linear.weight'], finished['decode_head.linear.weight'])
    assert not torch.equal(begun['specific_pool'], finished['specific_pool'])
    # At the step where losses begin to reach the features all centres move to k-means, and nowhere else as far.
    for starts in (first, trained):
        moved = [float((starts.centres[step + 1] - starts.centres[step]).norm()) for step in range(3)]
        assert moved[2] > 5 * max(moved[:2]), moved


def test_a_resumed_run_goes_on(build, tmp_path):
    """Bit by bit: nothing is forgotten."""
    whole = build('run', steps=6)
    whole.train()
    for path in (tmp_path / 'run').glob('iter_6.pth'):
        path.unlink()
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'run' / 'iter_4.pth'))
    resumed = build('run', steps=6, resume=True, seed=8)
    resumed.train()
    for key, value in state_of(whole).items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    for one, other in zip(whole.optim_wrapper.optimizer.state.values(), resumed.optim_wrapper.optimizer.state.values()):
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(parts=dict(num_classes=5)), r'cluster_probe.centres is \(4, 5\) there and \(5, 5\) here'),
        (dict(parts=dict(omh_head=dict(type='OMHHead', num_levels=2))), 'weights that the model lacks: .*centres.2'),
        (dict(parts=dict(omh_head=dict(type='OMHHead', expansion=3.0))), 'weights differ in shape: omh_head'),
        (dict(parts=dict(omh_head=None)), 'weights that the model lacks: omh_head'),
        (dict(host=SMOOSEG, hooks=[]), "lacks 1 weights of the config's model: cluster_probe.student"),
        (dict(optimizer=dict(type='SGD', lr=1e-2, momentum=0.9)), 'optimiser is of another kind than SGD, .*momentum'),
    ],
    ids=['classes', 'fewer levels', 'other levels', 'no OMH', 'another host', 'another optimiser'],
)
def test_what_does_not_fit_is_not_resumed(build, tmp_path, change, message):
    """And nothing in the work directory is touched."""
    build('run').train()
    before = content_of(tmp_path / 'run')
    assert 'config.py' in before
    text = refusal(build('run', steps=6, resume=True, **change))
    assert re.search(message, text) and text.startswith(str(tmp_path / 'run' / 'iter_4.pth'))
    assert 'Resume with the config of its run; a new run starts from its weights with load_from alone' in text
    assert content_of(tmp_path / 'run') == before


def test_a_training_starts_from_a_host_and_from_other_classes(build, tmp_path):
    build('host', parts=dict(omh_head=None)).train()
    host = str(tmp_path / 'host' / 'iter_4.pth')
    build('omh', load_from=host).train()
    other = dict(load_from=host, parts=dict(num_classes=3))
    assert 'name the parts of the model that shall begin anew' in refusal(build('other', **other))
    assert not (tmp_path / 'other' / 'config.py').exists()
    build('other', check=dict(fresh_parts=['cluster_probe', 'linear_probe']), **other).train()
    assert (tmp_path / 'other' / 'config.py').exists()


def test_a_part_that_nothing_trains_cannot_begin_anew(build, tmp_path):
    build('host').train()
    runner = build('other', load_from=str(tmp_path / 'host' / 'iter_4.pth'), check=dict(fresh_parts=['decode_head']))
    runner.model.decode_head.requires_grad_(False)
    assert 'trains no decode_head: begun anew, it would stay random' in refusal(runner)


def test_a_test_is_refused_before_anything_is_written(build, tmp_path):
    build('host', parts=dict(omh_head=None)).train()
    runner = build('test', load_from=str(tmp_path / 'host' / 'iter_4.pth'))
    with pytest.raises(CheckpointError, match='the levels of OMH would be random'):
        runner.test()
    assert not content_of(tmp_path / 'test')
    runner = build('test', load_from=str(tmp_path / 'absent.pth'))
    with pytest.raises(FileNotFoundError, match=r'there is no checkpoint .*absent.pth; .* holds no .pth file'):
        runner.test()


def test_options():
    with pytest.raises(ValueError, match="fresh_parts must be a list of names, .* got 'omh_head'"):
        CheckpointCheckHook('omh_head')


# ---- what a resumed run needs beside its weights


@pytest.fixture
def altered(build, tmp_path) -> Callable[[Callable[[dict], None]], str]:
    """``altered(change)``: what is said when a run is resumed from a checkpoint that ``change`` has been at."""

    def resume(change: Callable[[dict], None]) -> str:
        build('run', steps=2, hooks=[], host=SMOOSEG).train()
        path = tmp_path / 'run' / 'iter_2.pth'
        content = torch.load(path, weights_only=False)
        change(content)
        torch.save(content, path)
        before = content_of(tmp_path / 'run')
        text = refusal(build('run', hooks=[], host=SMOOSEG, resume=True))
        assert content_of(tmp_path / 'run') == before and text.startswith(str(path))
        return text

    return resume


def first_state(content: dict) -> dict:
    state = content['optimizer']['state']
    return state[min(state)]


def group_of(content: dict) -> dict:
    return content['optimizer']['param_groups'][0]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda content: content.pop('optimizer'), 'it lacks optimizer, as weights alone and best_.*load_from alone'),
        (lambda content: content.pop('message_hub'), 'it lacks message_hub'),
        (lambda content: content['meta'].pop('iter'), 'it lacks meta.iter'),
        (lambda content: content.pop('meta'), 'it lacks meta.epoch, meta.iter'),
        (lambda content: content['meta'].update(iter=-5), 'it lacks meta.iter'),
        (lambda content: content['meta'].update(epoch=True), 'it lacks meta.epoch'),
        (lambda content: content['meta'].update(seed='x'), 'it lacks meta.seed'),
        (lambda content: content['meta'].update(dataset_meta=5), 'meta.dataset_meta has no names and colours'),
        (lambda content: content['message_hub'].clear(), 'it lacks message_hub.log_scalars, message_hub.runtime_info'),
        (lambda content: group_of(content).update(lr=float('nan')), 'its optimiser has lr=nan'),
        (lambda content: group_of(content).update(lr='fast'), "its optimiser has lr='fast'"),
        (lambda content: group_of(content).update(betas=(2, float('inf'))), r'its optimiser has betas=\(2, inf\)'),
        (lambda content: content['optimizer'].pop('state'), 'it lacks optimizer.state'),
        (lambda content: content['optimizer']['param_groups'].pop(), 'optimiser has 0 groups|has . groups of'),
        (lambda content: first_state(content)['exp_avg'].fill_(torch.nan), '1 tensors that are not finite: exp_avg of'),
        (lambda content: first_state(content).update(exp_avg=torch.zeros(3, 3)), r'has exp_avg \(3, 3\) of par'),
        (lambda content: content['optimizer']['state'].update({99: {}}), 'has state of 99, which is no parameter'),
        (lambda content: content['state_dict'].clear(), 'has no weights: its state dict is empty'),
        (lambda content: content['state_dict'].update(iteration='2'), 'iteration hold something else'),
    ],
)
def test_a_checkpoint_without_its_state_is_not_resumed(altered, change, message):
    assert re.search(message, altered(change))


def test_a_run_that_has_ended_says_that_nothing_is_left(build, monkeypatch):
    build('run', steps=2, hooks=[], host=SMOOSEG).train()
    lines: list[str] = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *_: lines.append(text))
    build('run', steps=2, hooks=[], host=SMOOSEG, resume=True).train()
    assert [line for line in lines if 'iter_2.pth has 2 steps, and the run ends at 2: nothing is left' in line]


def test_state_of_an_optimiser_that_fits():
    """Also of an optimiser before its first step, and of one with other options."""
    weight = nn.Parameter(torch.zeros(2, 3))
    optimizer = torch.optim.AdamW([weight], 1e-3)
    saved = optimizer.state_dict()
    assert optimizer_problem(saved['param_groups'], saved['state'], optimizer) is None
    weight.grad = torch.ones(2, 3)
    optimizer.step()
    saved = optimizer.state_dict()
    other = torch.optim.AdamW([weight], 1e-2, weight_decay=0.3)
    assert optimizer_problem(saved['param_groups'], saved['state'], other) is None


# ---- the note of the newest checkpoint


@pytest.mark.parametrize(
    ('note', 'message'),
    [
        ('', 'last_checkpoint is empty'),
        (' \n', 'last_checkpoint is empty'),
        ('{run}/iter_9.pth', 'last_checkpoint names .*iter_9.pth, which is not there'),
        ('{other}/iter_2.pth', 'last_checkpoint names .*/other/iter_2.pth, which is of another run than'),
        (None, 'has checkpoints, but no file last_checkpoint'),
    ],
)
def test_a_note_that_leads_nowhere(build, tmp_path, note, message):
    build('run', steps=2, hooks=[], host=SMOOSEG).train()
    run, other = tmp_path / 'run', tmp_path / 'other'
    other.mkdir()
    shutil.copy(run / 'iter_2.pth', other)
    if note is None:
        (run / 'last_checkpoint').unlink()
    else:
        (run / 'last_checkpoint').write_text(note.format(run=run, other=other))
    before = content_of(run)
    text = refusal(build('run', hooks=[], host=SMOOSEG, resume=True))
    assert re.search(message, text) and f'Go on from {run}/iter_2.pth with load_from={run}/iter_2.pth' in text
    assert content_of(run) == before
    build('run', hooks=[], host=SMOOSEG, resume=True, load_from=str(run / 'iter_2.pth')).train()


def test_nothing_to_resume_from_starts_a_run(build, tmp_path):
    build('run', steps=2, hooks=[], host=SMOOSEG, resume=True).train()
    assert (tmp_path / 'run' / 'iter_2.pth').is_file()


def test_checkpoints_kept_elsewhere_are_resumed_from(build, tmp_path):
    elsewhere = dict(out_dir=str(tmp_path / 'checkpoints'))
    build('run', steps=2, hooks=[], host=SMOOSEG, checkpoint=elsewhere).train()
    assert (tmp_path / 'checkpoints' / 'run' / 'iter_2.pth').is_file()
    resumed = build('run', hooks=[], host=SMOOSEG, checkpoint=elsewhere, resume=True)
    resumed.train()
    assert resumed.iter == 4 and int(resumed.model.iteration) == 4


# ---- complete or absent


class Full(OSError):
    """No space left."""


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """``full_disk(name, after)``: files whose name has ``name`` in it take so many bytes."""

    def fill(name: str, after: int) -> None:
        import builtins

        real = builtins.open

        def limited(path: Any, mode: str = 'r', *args: Any, **options: Any) -> Any:
            file = real(path, mode, *args, **options)
            if 'w' in mode and name in os.path.basename(str(path)):
                write = file.write

                def refuse(data: Any) -> int:
                    write(data[:after])
                    file.flush()
                    raise Full(28, 'No space left on device', str(path))

                return SimpleFile(file, refuse)
            return file

        monkeypatch.setattr(builtins, 'open', limited)

    return fill


class SimpleFile:
    """A file with another ``write``."""

    def __init__(self, file: Any, write: Callable[[Any], int]) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> SimpleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize('name', ['iter_4.pth', 'last_checkpoint'])
def test_a_full_disk_leaves_the_checkpoint_before(build, tmp_path, full_disk, name):
    """Also where only one is kept."""
    one = dict(max_keep_ckpts=1)
    build('run', steps=2, hooks=[], host=SMOOSEG, checkpoint=one).train()
    before = {path: path.read_bytes() for path in (tmp_path / 'run').glob('*.pth')}
    note = (tmp_path / 'run' / 'last_checkpoint').read_text()
    full_disk(name, 20)
    with pytest.raises(Full):
        build('run', hooks=[], host=SMOOSEG, checkpoint=one, resume=True).train()
    assert (tmp_path / 'run' / 'last_checkpoint').read_text() == note
    for path, content in before.items():
        assert path.read_bytes() == content
    assert not list((tmp_path / 'run').glob('*.part'))
    for path in (tmp_path / 'run').glob('*.pth'):
        torch.load(path, weights_only=False)


def test_of_the_checkpoints_before_as_many_are_kept_as_asked(build, tmp_path):
    build('run', steps=8, hooks=[], host=SMOOSEG, checkpoint=dict(max_keep_ckpts=2)).train()
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth')) == ['iter_6.pth', 'iter_8.pth']


def test_the_best_is_replaced_when_the_new_one_is_there(build, tmp_path, monkeypatch):
    runner = build('run', steps=2, hooks=[], host=SMOOSEG, checkpoint=dict(save_best='score', rule='greater'))
    runner.train()
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'CheckpointHook')
    best = [f'best_score_iter_{step}.pth' for step in (2, 3)]
    hook._save_best_checkpoint(runner, dict(score=1.0))
    assert [path.name for path in (tmp_path / 'run').glob('best_*')] == best[:1]
    kept = (tmp_path / 'run' / best[0]).read_bytes()
    runner.train_loop._iter = 3
    with monkeypatch.context() as patch:
        patch.setattr(torch, 'save', lambda *_: (_ for _ in ()).throw(Full(28, 'No space left on device')))
        with pytest.raises(Full):
            hook._save_best_checkpoint(runner, dict(score=2.0))
    assert (tmp_path / 'run' / best[0]).read_bytes() == kept
    hook.best_ckpt_path = str(tmp_path / 'run' / best[0])
    hook._save_best_checkpoint(runner, dict(score=3.0))
    assert [path.name for path in (tmp_path / 'run').glob('best_*')] == best[1:]
    hook._save_best_checkpoint(runner, dict(score=4.0))
    assert [path.name for path in (tmp_path / 'run').glob('best_*')] == best[1:]


KILLED = """
import sys, time
import torch
import omh_mmseg
from mmengine.fileio import get_file_backend

backend, path = get_file_backend(sys.argv[1]), sys.argv[1]
content = b'x' * 200_000_000
print('ready', flush=True)
while True:
    backend.put(content, path)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_a_complete_file(tmp_path):
    """Killed at many moments of writing 200 MB; the file always has all of them."""
    path = tmp_path / 'iter_1.pth'
    for turn in range(6):
        with subprocess.Popen([sys.executable, '-c', KILLED, str(path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            until = time.monotonic() + 60
            while not path.is_file() and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.037 * turn)
            process.send_signal(signal.SIGKILL)
        assert path.stat().st_size == 200_000_000
    assert {one.name for one in tmp_path.iterdir()} <= {'iter_1.pth', 'iter_1.pth.part'}


def test_runners_without_the_models_of_this_library_are_left_alone():
    runner = SimpleNamespace(model=nn.Linear(1, 1), iter=0, _train_loop=dict(), _resume=False, _load_from=None)
    hook = CheckpointCheckHook()
    hook.before_run(runner)
    hook.after_load_checkpoint(runner, dict(state_dict={}))
    hook.before_train(runner)
