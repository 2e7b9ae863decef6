"""Commands in processes of their own, on a demo config scaled down to seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / 'configs' / 'omh_stego_vit-t8_demo.py'
COUNTS = dict(train=12, val=4)
LIMIT = 400
SERVER = REPOSITORY / 'tests' / 'fork_server.py'


def environment() -> dict[str, str]:
    """The package importable from any directory, one thread, no display."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
    fixed = dict(PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS='1', MPLBACKEND='Agg')
    dropped = ('OMH_DATA_ROOT', 'OMH_NUM_CLASSES', 'LOCAL_RANK')
    return {key: value for key, value in os.environ.items() if key not in dropped} | fixed


@pytest.fixture(scope='session')
def command() -> Callable[..., list[str]]:
    """``command('train.py', config, ..., options=dict(...))``: the words that start one of this project's tools."""

    def words(tool: str | Path, *arguments: object, options: dict[str, object] | None = None) -> list[str]:
        path = Path(tool) if Path(tool).is_absolute() else REPOSITORY / 'tools' / tool
        spread = [f'{key}={value}' for key, value in (options or {}).items()]
        return [sys.executable, str(path), *map(str, arguments), *(['--cfg-options', *spread] if spread else [])]

    return words


@pytest.fixture(scope='session')
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Run a command in a folder, check its exit status, return what it printed; see ``tests/fork_server.py``."""
    log = tmp_path_factory.mktemp('log') / 'log.txt'
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, SERVER], env=environment(), text=True, stdin=pipe, stdout=pipe)
    assert server.stdin is not None and server.stdout is not None

    def run_in(folder: Path, words: list[str], status: int = 0) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        assert words[0] == sys.executable
        print(json.dumps(dict(words=words[1:], folder=str(folder), log=str(log), limit=LIMIT)), file=server.stdin)
        server.stdin.flush()
        ended, printed = int(server.stdout.readline()), log.read_text(errors='replace')
        assert ended == status, f'{" ".join(words)}\nended with {ended}:\n{printed[-6000:]}'
        return printed

    yield run_in
    server.stdin.close()
    server.wait()


@pytest.fixture(scope='session')
def start() -> Callable[..., subprocess.Popen]:
    """Start a command in a session of its own, so that it can be interrupted like from a terminal."""

    def start_in(folder: Path, words: list[str]) -> subprocess.Popen:
        return subprocess.Popen(
            words, cwd=folder, env=environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start_in


@pytest.fixture(scope='session')
def demo(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The demo config on 12 + 4 scenes, random backbone weights and 4 steps: ``config``, ``options``, ``folder``.

    OMH reaches the features from step 2 on. The index path lies below ``folder``; nothing is made yet.
    """
    from mmengine.config import Config
    from mmengine.registry import DefaultScope, init_default_scope

    import omh_mmseg  # noqa: F401
    from omh_mmseg.registry import MODELS

    folder = tmp_path_factory.mktemp('demo')
    config = Config.fromfile(str(DEMO))
    init_default_scope('mmseg')
    torch.manual_seed(0)
    torch.save(MODELS.build(config.model.backbone.backbone).state_dict(), folder / 'vit.pth')
    DefaultScope._instance_dict.clear()
    options: dict[str, object] = {
        'train_cfg.max_iters': 4,
        'train_cfg.val_interval': 4,
        'default_hooks.checkpoint.interval': 2,
        'default_hooks.logger.interval': 1,
        'model.backbone.checkpoint': folder / 'vit.pth',
        'model.omh_head.reach.begin': 2,
        'model.gradient_log_interval': 2,
        'train_dataloader.dataset.index': folder / 'index.npz',
        'train_dataloader.batch_size': 4,
    }
    inner = dict(train='dataset.dataset', val='dataset', test='dataset')
    for loader, dataset in inner.items():
        options[f'{loader}_dataloader.num_workers'] = 0
        options[f'{loader}_dataloader.persistent_workers'] = False
        options[f'{loader}_dataloader.{dataset}.data_root'] = folder / 'scenes'
        for split, count in COUNTS.items():
            options[f'{loader}_dataloader.{dataset}.counts.{split}'] = count
    return SimpleNamespace(config=DEMO, options=options, folder=folder)


@pytest.fixture(scope='session')
def trained(demo, command, run) -> SimpleNamespace:
    """``demo`` with its neighbour index and a run of 4 steps.

    ``preparation`` and ``log`` are what the two commands printed, ``figures`` the logged lines of the run; later runs
    in ``work_dir`` do not change them.
    """
    preparation = run(demo.folder, command('prepare.py', 'neighbours', demo.config, options=demo.options))
    work_dir = demo.folder / 'run'
    log = run(demo.folder, command('train.py', demo.config, '--work-dir', work_dir, options=demo.options))
    (figures,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in figures.read_text().splitlines()]
    return SimpleNamespace(**vars(demo), work_dir=work_dir, log=log, preparation=preparation, figures=lines)
