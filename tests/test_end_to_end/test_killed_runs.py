"""A run is a function of its config and seed: however often it is killed, whoever loads its data, whatever ran before.

Runs of the demo configs on a few small scenes, with random crops, flips and colours, each in a process forked from one
that has imported everything and run nothing.
"""

from __future__ import annotations

import gc
import os
import resource
import runpy
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from omh_mmseg.compat import import_yapf
from omh_mmseg.engine import launch
from omh_mmseg.engine.hooks import HierarchyHook, ScoreReportHook
from omh_mmseg.preparation.neighbours import prepare_neighbours
from omh_mmseg.study import job
from omh_mmseg.study.process import process_context

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STEPS, INTERVAL, VALIDATION, SIDE = 8, 2, 4, 48
COUNTS = dict(train=12, val=4)
LIMIT = 300
TRAIN_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='ResizeShortSide', size=SIDE),
    dict(type='PackSegInputs'),
]
TEST_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortSide', size=SIDE, divisor=8),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]
# Where a run is killed: a method of hooks, the iteration, and whether before or after all other hooks.
POINTS: dict[str, tuple[str, int, str]] = {
    'at the start': ('before_train_iter', 0, 'HIGHEST'),
    'after the first checkpoint': ('after_train_iter', 1, 'LOWEST'),
    'before a step': ('before_train_iter', 3, 'LOWEST'),
    'in a validation': ('before_val_iter', 4, 'LOWEST'),
    'before a checkpoint': ('after_train_iter', 5, 'HIGHEST'),
    'in the writing of a checkpoint': ('before_save_checkpoint', 5, 'LOWEST'),
    'in the last validation': ('before_val_iter', 8, 'LOWEST'),
}
HOSTS = ('stego', 'hp', 'smooseg', 'eagle', 'primaps')
CASES = [(host, omh, workers) for host in HOSTS for omh in (False, True) for workers in (0, 2)]
QUICK = ('stego', True, 2)
RUN_NAME = '__killed_run__'


class Killer(Hook):
    """Kills its process at one of the `POINTS`."""

    def __init__(self, point: str) -> None:
        method, self.iteration, self.priority = POINTS[point]
        setattr(self, method, self.strike)

    def strike(self, runner: Runner, checkpoint: Mapping[str, Any] | None = None, **_: Any) -> None:
        if runner.iter != self.iteration:
            return
        if checkpoint is None:
            os.kill(os.getpid(), signal.SIGKILL)
        # The system kills it as soon as a file grows beyond this, whatever the file is called meanwhile.
        (written,) = Path(runner.work_dir).glob(f'iter_{INTERVAL}.pth')
        resource.setrlimit(resource.RLIMIT_FSIZE, (written.stat().st_size // 2, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    def get_triggered_stages(self) -> list[str]:
        return list(vars(self))


def settings(folder: Path, host: str, omh: bool, workers: int) -> tuple[str, dict[str, Any]]:
    """Config file and overrides of a tiny run."""
    options: dict[str, Any] = {
        'train_cfg.max_iters': STEPS,
        'train_cfg.val_interval': VALIDATION,
        'default_hooks.checkpoint.interval': INTERVAL,
        'default_hooks.logger.interval': 1,
        'model.gradient_log_interval': 3,
        'train_dataloader.batch_size': 4,
        'val_dataloader.batch_size': 2,
        'param_scheduler': [dict(type='PolyLR', by_epoch=False, power=0.9, begin=2, end=STEPS)],
    }
    if omh:
        options |= {'model.omh_head.reach.begin': 3, 'model.omh_head.plan': dict(tolerance=1e-3)}
    if host == 'hp':
        options |= {'model.pool_size': 8, 'model.warmup': 2}
    if host == 'primaps':
        options |= {'model.proposals.crf': None, 'model.cluster_probe.interval': 2}
    if host == 'eagle':
        options['model.switch_step'] = 3
    pairs = 'dataset.' if host == 'stego' else ''
    if pairs:
        options['train_dataloader.dataset.index'] = str(folder / 'index.npz')
    inner = dict(train=(f'{pairs}dataset', TRAIN_PIPELINE), val=('dataset', TEST_PIPELINE))
    for loader, (dataset, pipeline) in inner.items():
        options |= {
            f'{loader}_dataloader.num_workers': workers,
            f'{loader}_dataloader.persistent_workers': workers > 0,
            f'{loader}_dataloader.{dataset}.data_root': str(folder / 'scenes'),
            f'{loader}_dataloader.{dataset}.counts': COUNTS,
            f'{loader}_dataloader.{dataset}.pipeline': pipeline,
        }
    return str(CONFIGS / f'{"omh_" * omh}{host}_vit-t8_demo.py'), options


def leave_out_the_slow() -> None:
    """Nothing that is trained or scored depends on how configs are laid out, or on figures."""
    import_yapf()
    from yapf.yapflib import yapf_api

    yapf_api.FormatCode = lambda text, **_: (text, True)
    gc.freeze()
    HierarchyHook.after_train = lambda *_: None  # type: ignore[method-assign]
    ScoreReportHook.after_val_epoch = lambda *_, **__: None  # type: ignore[method-assign]


def train(folder: Path, work_dir: Path, case: tuple[str, bool, int], point: str | None = None, runs: int = 1) -> None:
    """Train, going on from what is there; several runs after each other have directories of their own."""
    leave_out_the_slow()
    path, options = settings(folder, *case)
    config = launch.load_config(path, str(work_dir), options=options)
    config.log_level = 'ERROR'
    config.resume = True
    if case[0] == 'stego':
        prepare_neighbours(config, num_neighbours=8, if_missing=True, progress=False)
    runners = []
    for run in range(runs):
        config.work_dir = str(work_dir if run == 0 else work_dir.with_name(f'{work_dir.name}_{run + 1}'))
        runners.append(launch.build_runner(config))
    for runner in runners:
        if case[0] == 'smooseg':
            runner.register_hook(dict(type='EMAHook', momentum=0.1))
        if point is not None:
            runner.register_hook(Killer(point))
        runner.train()


class Draws(Hook):
    """Keeps what a step would draw first, and which items it is given."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.drawn: list[tuple[float, list[str]]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        state = torch.get_rng_state()
        self.drawn.append((float(torch.rand(())), [sample.img_path for sample in data_batch['data_samples']]))
        torch.set_rng_state(state)


def train_rank(folder: Path, work_dir: Path, rank: int, port: int) -> None:
    """Train as one of two processes, and keep what has become of it."""
    leave_out_the_slow()
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    path, options = settings(folder, 'stego', True, 0)
    options['model.omh_head.plan'] = dict(tolerance=1e-3, marginal='activation')
    config = launch.load_config(path, str(work_dir), 'pytorch', options)
    config.log_level = 'ERROR'
    config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
    runner, draws = launch.build_runner(config), Draws()
    runner.register_hook(draws)
    runner.train()
    torch.save(dict(state=runner.model.module.state_dict(), drawn=draws.drawn), work_dir / f'{rank}.pth')


def differences(one: Any, other: Any, name: str = '') -> Iterator[str]:
    """Names of the values in nested containers that are not the same, bit by bit."""
    if isinstance(one, Mapping):
        if one.keys() != other.keys():
            yield f'{name}: keys {set(one) ^ set(other)}'
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f'{name}.{key}')
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            yield f'{name}: lengths {len(one)}, {len(other)}'
        for place, (left, right) in enumerate(zip(one, other)):
            yield from differences(left, right, f'{name}.{place}')
    elif isinstance(one, HistoryBuffer):
        yield from differences(list(one.data), list(other.data), name)
    elif isinstance(one, (torch.Tensor, np.ndarray)):
        if not np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True):
            yield name
    elif one != other:
        yield name


def outcome(work_dir: Path) -> dict[str, Any]:
    """What a finished run has come to: weights, buffers, optimiser, schedules, and all figures but times."""
    loaded = torch.load(work_dir / f'iter_{STEPS}.pth', map_location='cpu')
    figures = {
        name: value for name, value in loaded['message_hub']['log_scalars'].items()
        if not name.endswith('time')
    }  # fmt: skip
    kept = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    return {key: loaded[key] for key in kept if key in loaded} | dict(figures=figures)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('killed')


@pytest.fixture(scope='module')
def start() -> Callable[..., BaseProcess]:
    """``start('train', ...)``: a process that calls a function of this file."""
    context = process_context(job.__name__)

    def begin(function: str, *arguments: Any) -> BaseProcess:
        task = dict(FUNCTION=function, ARGUMENTS=arguments)
        process = context.Process(target=runpy.run_path, args=(__file__, task, RUN_NAME))
        process.start()
        return process

    return begin


@pytest.fixture(scope='module')
def in_process(folder, start) -> Callable[..., int]:
    """``in_process(name, case, point=None, runs=1)``: train in a process of its own; how it ended."""

    def run(name: str, case: tuple[str, bool, int], point: str | None = None, runs: int = 1) -> int:
        process = start('train', folder, folder / name, case, point, runs)
        process.join(LIMIT)
        assert process.exitcode is not None, 'the run hangs'
        return process.exitcode

    return run


@pytest.fixture(scope='module')
def whole(folder, in_process) -> Callable[[tuple[str, bool, int]], dict[str, Any]]:
    """The outcome of a run that nobody disturbed; each is made once."""
    made: dict[tuple[str, bool, int], dict[str, Any]] = {}

    def outcome_of(case: tuple[str, bool, int]) -> dict[str, Any]:
        if case not in made:
            name = '-'.join(map(str, case))
            assert in_process(name, case) == 0
            made[case] = outcome(folder / name)
        return made[case]

    return outcome_of


@pytest.mark.parametrize(
    'case', [QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != QUICK)], ids=str
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(folder, in_process, whole, case, request) -> None:
    """SIGKILL at each point, or its equal within a write; then the same command with --resume."""
    quick = request.node.get_closest_marker('slow') is None
    for point in ['in the writing of a checkpoint'] if quick else POINTS:
        name = f'{case}-{point}'
        assert in_process(name, case, point) in (-signal.SIGKILL, -signal.SIGXFSZ, 255), point
        assert not (folder / name / f'iter_{STEPS}.pth').exists() or point == 'in the last validation'
        assert in_process(name, case) == 0
        assert list(differences(outcome(folder / name), whole(case))) == [], point


@pytest.mark.slow
@pytest.mark.parametrize(('host', 'omh'), [(host, omh) for host in HOSTS for omh in (False, True)])
def test_whoever_loads_the_data(whole, host, omh) -> None:
    assert list(differences(whole((host, omh, 0)), whole((host, omh, 2)))) == []


@pytest.mark.slow
@pytest.mark.parametrize(('host', 'omh'), [(host, omh) for host in HOSTS for omh in (False, True)])
def test_two_runs_in_one_process(folder, in_process, whole, host, omh) -> None:
    """Both are that of a fresh process, and each has its own log."""
    case = (host, omh, 0)
    name = f'{host}-{omh}-two'
    assert in_process(name, case, runs=2) == 0
    for work_dir in (folder / name, folder / f'{name}_2'):
        assert list(differences(outcome(work_dir), whole(case))) == []
        (scalars,) = work_dir.glob('*/vis_data/scalars.json')
        assert len([line for line in scalars.read_text().splitlines() if '"loss"' in line]) == STEPS
        (log,) = work_dir.glob('*/*.log')


@pytest.mark.slow
def test_two_ranks_draw_apart_and_stay_one_model(folder, start, whole) -> None:
    """Of the state, the positions that k-means starts from are each rank's own."""
    whole(('stego', True, 0))  # whose neighbours are needed
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    ranks = [start('train_rank', folder, folder / 'ranks', rank, port) for rank in range(2)]
    for process in ranks:
        process.join(LIMIT)
        assert process.exitcode == 0
    one, other = (torch.load(folder / 'ranks' / f'{rank}.pth') for rank in range(2))
    assert len(one['drawn']) == STEPS
    for (drawn, items), (drawn_there, items_there) in zip(one['drawn'], other['drawn']):
        assert drawn != drawn_there and items != items_there
    assert list(differences(one['state'], other['state'])) in ([], ['.omh_head.rule.start.pool'])


if __name__ == RUN_NAME:
    globals()[FUNCTION](*ARGUMENTS)  # type: ignore[name-defined]  # noqa: F821
