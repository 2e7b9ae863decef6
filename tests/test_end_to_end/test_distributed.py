"""Runs of two processes on processors: through the shell commands, mmseg's own, and stand-ins for srun and mpirun."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmseg
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / 'tools'
MMSEG_TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'
LIMIT = 400
HOSTS = [f'{omh}{host}' for host in ('stego', 'hp', 'smooseg') for omh in ('', 'omh_')]
RANK_DIARY = '''
import os
import signal
from pathlib import Path

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmseg.registry import HOOKS


@HOOKS.register_module()
class RankDiary(Hook):
    """Writes what each rank is and sees, and kills one rank where the test asks for it."""

    priority = 'LOWEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        images = [sample.img_path for sample in data_batch['data_samples']]
        with open(Path(runner.work_dir) / f'images_{get_world_size()}_{get_rank()}.txt', 'a') as file:
            file.write(f'{runner.iter} ' + ' '.join(Path(image).stem for image in images) + '\\n')
        if get_rank() == 1 and str(runner.iter) == os.environ.get('KILLED_AT'):
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train(self, runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        content = dict(state=model.state_dict(), random=torch.get_rng_state(), learning=[
            name for name, parameter in model.named_parameters() if parameter.requires_grad
        ])
        torch.save(content, Path(runner.work_dir) / f'rank_{get_world_size()}_{get_rank()}.pth')
'''
LAUNCHER = '''#!{python}
"""Stands in for {name}: starts the processes, and stops all of them when one fails."""
import os
import subprocess
import sys
import time

words = sys.argv[1:]
if {name!r} == 'srun':
    count = next(int(word.partition('=')[2]) for word in words if word.startswith('--ntasks='))
    command = words[words.index('python'):]
    rank = dict(SLURM_PROCID='R', SLURM_LOCALID='R', SLURM_NTASKS='N', SLURM_NODELIST='node7', SLURM_NNODES='1')
else:
    count, command = int(words[words.index('-np') + 1]), words[2:]
    rank = dict(OMPI_COMM_WORLD_RANK='R', OMPI_COMM_WORLD_LOCAL_RANK='R', OMPI_COMM_WORLD_SIZE='N')
ranks = [
    subprocess.Popen(command, env=os.environ | {{
        key: value.replace('R', str(number)).replace('N', str(count)) for key, value in rank.items()
    }})
    for number in range(count)
]
while any(process.poll() is None for process in ranks):
    if any(process.poll() for process in ranks):
        for process in ranks:
            process.terminate()
    time.sleep(0.1)
sys.exit(max(abs(process.returncode) for process in ranks))
'''


def free_port() -> str:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


class Started:
    """A command in a session of its own, whose processes bear a mark that its children inherit."""

    def __init__(self, words: list[object], folder: Path, helpers: Path, **variables: str) -> None:
        self.mark = f'{folder.name}_{time.monotonic_ns()}'
        folder.mkdir(parents=True, exist_ok=True)
        paths = [str(helpers), str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
        dropped = ('OMH_DATA_ROOT', 'OMH_NUM_CLASSES', 'LOCAL_RANK', 'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
        environment = {key: value for key, value in os.environ.items() if key not in dropped} | dict(
            PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS='1', MPLBACKEND='Agg', PORT=free_port(),
            PATH=os.pathsep.join([str(helpers), str(Path(sys.executable).parent), os.environ['PATH']]),
            STARTED_BY_TEST=self.mark,
        )  # fmt: skip
        self.log_file = open(folder / f'{self.mark}.log', 'w+')
        self.process = subprocess.Popen(
            [str(word) for word in words], cwd=folder, env=environment | variables, text=True, start_new_session=True,
            stdout=self.log_file, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def log(self) -> str:
        return Path(self.log_file.name).read_text()

    def wait(self, limit: float = LIMIT) -> int:
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            pytest.fail(f'still running after {limit} s:\n{self.log[-6000:]}')
        finally:
            if self.process.poll() is None:
                self.end()

    def ended_well(self) -> str:
        status = self.wait()
        assert status == 0, f'{status}:\n{self.log[-8000:]}'
        return self.log

    def left(self) -> list[int]:
        """Processes that the command has left behind."""
        found = []
        for folder in Path('/proc').glob('[0-9]*'):
            try:
                if f'STARTED_BY_TEST={self.mark}'.encode() in (folder / 'environ').read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def leaves_none(self, limit: float = 30) -> None:
        until = time.monotonic() + limit
        while left := self.left():
            assert time.monotonic() < until, f'{left} are still there:\n{self.log[-4000:]}'
            time.sleep(0.2)

    def end(self) -> None:
        for number in self.left():
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


@pytest.fixture
def start(demo: SimpleNamespace) -> Iterator[Callable[..., Started]]:
    """``start(words, folder, **variables)``; whatever still runs at the end is killed."""
    (demo.folder / 'rank_diary.py').write_text(RANK_DIARY)
    for name in ('srun', 'mpirun'):
        (demo.folder / name).write_text(LAUNCHER.format(python=sys.executable, name=name))
        (demo.folder / name).chmod(0o755)
    begun: list[Started] = []

    def begin(words: list[object], folder: Path, **variables: str) -> Started:
        begun.append(Started(words, folder, demo.folder, **variables))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


@pytest.fixture(scope='session')
def setting(demo: SimpleNamespace, command: Callable, run: Callable) -> Callable[[str], SimpleNamespace]:
    """``setting('omh_hp')``: the demo's config of a host with a diary of the ranks, and options to scale it down."""
    made: list[bool] = []

    def of(name: str) -> SimpleNamespace:
        host = name.rpartition('_')[2]
        if host == 'stego' and not made:
            made.append(True)
            run(demo.folder, command('prepare.py', 'neighbours', demo.config, options=demo.options))
        config = demo.folder / f'{name}.py'
        config.write_text(
            f"_base_ = {str(demo.config.with_name(f'{name}_vit-t8_demo.py'))!r}\n"
            "custom_imports = dict(imports=['omh_mmseg', 'rank_diary'], allow_failed_imports=False)\n"
            "custom_hooks = _base_.custom_hooks + [dict(type='RankDiary')]\n"
        )
        options = dict(demo.options)
        if host != 'stego':
            inner = 'train_dataloader.dataset.'
            options = {
                key.replace(f'{inner}dataset.', inner): value
                for key, value in options.items()
                if key != f'{inner}index'
            }
        options = {key: value for key, value in options.items() if 'omh' in name or 'omh_head' not in key}
        options |= {'train_dataloader.batch_size': 2, 'default_hooks.checkpoint.interval': 2}
        if host == 'hp':
            options |= {'model.pool_size': 8, 'model.warmup': 1, 'custom_hooks.0.renew_interval': 2}
        return SimpleNamespace(config=config, options=[f'{key}={value}' for key, value in options.items()])

    return of


def check_ranks(folder: Path, host: str, ranks: int = 2) -> list[dict[str, Any]]:
    """What the ranks wrote at the end: one set of parameters, random numbers and images of their own."""
    diaries = [torch.load(folder / f'rank_{ranks}_{rank}.pth') for rank in range(ranks)]
    images = [(folder / f'images_{ranks}_{rank}.txt').read_text() for rank in range(ranks)]
    first = diaries[0]
    # HP's pools are of the rank.
    own = ('agnostic_pool', 'specific_pool')
    for number, other in enumerate(diaries[1:], start=1):
        assert first['state'].keys() == other['state'].keys()
        different = [key for key, value in first['state'].items() if not torch.equal(value, other['state'][key])]
        assert set(different) <= set(own), different
        assert images[number] != images[0]
        if 'hp' in host:
            assert set(different) == set(own)
    return diaries


def scores_of(folder: Path) -> dict[str, float]:
    (path,) = folder.glob('*/scores/test/scores.json')
    return json.loads(path.read_text())['scores']


def test_two_processes_train_and_validate(setting: Callable, start: Callable, tmp_path: Path) -> None:
    host = setting('omh_smooseg')
    words = ['bash', TOOLS / 'dist_train.sh', host.config, 2, '--work-dir', tmp_path / 'run', '--cfg-options']
    started = start([*words, *host.options, 'train_cfg.max_iters=3', 'train_cfg.val_interval=3'], tmp_path / 'here')
    log = started.ended_well()
    assert 'level1/mIoU' in log and 'Distributed launcher: pytorch' in log and 'GPU number: 2' in log
    check_ranks(tmp_path / 'run', 'omh_smooseg')
    assert {path.name for path in (tmp_path / 'run').glob('*.pth')} >= {'iter_2.pth', 'iter_3.pth'}
    assert len(list((tmp_path / 'run').glob('*/*.log'))) == 1 and (tmp_path / 'run/hierarchy.json').is_file()
    started.leaves_none()


@pytest.mark.slow
@pytest.mark.parametrize('name', HOSTS)
def test_every_host(name: str, setting: Callable, start: Callable, tmp_path: Path) -> None:
    """Train until a rank is killed, resume, test with two processes and with one."""
    host = setting(name)
    train = ['bash', TOOLS / 'dist_train.sh', host.config, 2, '--work-dir', tmp_path / 'run']
    options = ['--cfg-options', *host.options]
    began = start([*train, *options], tmp_path / 'here', KILLED_AT='3')
    assert began.wait() not in (0, None)
    killed = max(path.stat().st_mtime for path in (tmp_path / 'run').glob('images_2_1.txt'))
    assert time.time() - killed < 60
    began.leaves_none()
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith('iter_2.pth')
    resumed = start([*train, '--resume', *options], tmp_path / 'here')
    assert re.search(r'resumed.*iter: 2', resumed.ended_well())
    check_ranks(tmp_path / 'run', name)
    resumed.leaves_none()

    checkpoint = tmp_path / 'run/iter_4.pth'
    # Of three images, one rank has one more than the other.
    options += ['test_dataloader.dataset.indices=3', 'test_dataloader.batch_size=1']
    scores = {}
    for ranks in (1, 2):
        words = ['bash', TOOLS / 'dist_test.sh', host.config, checkpoint, ranks, '--work-dir']
        start([*words, tmp_path / f'test{ranks}', *options], tmp_path / 'here').ended_well()
        scores[ranks] = scores_of(tmp_path / f'test{ranks}')
    assert scores[1] == scores[2] and 'probe/mIoU' in scores[1] and ('level1/mIoU' in scores[1]) == ('omh' in name)


@pytest.mark.slow
@pytest.mark.skipif(not MMSEG_TOOLS.is_dir(), reason='mmseg was installed without its tools')
def test_commands_of_mmseg(setting: Callable, start: Callable, tmp_path: Path) -> None:
    host = setting('omh_stego')
    words = ['bash', MMSEG_TOOLS / 'dist_train.sh', host.config, 2, '--work-dir', tmp_path / 'run', '--cfg-options']
    start([*words, *host.options], tmp_path / 'here').ended_well()
    check_ranks(tmp_path / 'run', 'omh_stego')
    checkpoint = tmp_path / 'run/iter_4.pth'
    for tools, script in ((MMSEG_TOOLS, 'theirs'), (TOOLS, 'ours')):
        words = ['bash', tools / 'dist_test.sh', host.config, checkpoint, 2, '--work-dir', tmp_path / script]
        start([*words, '--cfg-options', *host.options], tmp_path / 'here').ended_well()
    assert scores_of(tmp_path / 'theirs') == scores_of(tmp_path / 'ours')


@pytest.mark.slow
def test_slurm(setting: Callable, start: Callable, tmp_path: Path) -> None:
    """Trained and tested under srun, which no scontrol accompanies; a crash of one rank is the script's."""
    host = setting('omh_hp')
    words = ['bash', TOOLS / 'slurm_train.sh', 'cpu', 'job', host.config, '--work-dir', tmp_path / 'run']
    options = ['--cfg-options', *host.options]
    crashed = start([*words, *options], tmp_path / 'here', GPUS='2', KILLED_AT='2')
    assert crashed.wait() not in (0, None)
    crashed.leaves_none()
    shutil.rmtree(tmp_path / 'run')
    assert 'Distributed launcher: slurm' in start([*words, *options], tmp_path / 'here', GPUS='2').ended_well()
    check_ranks(tmp_path / 'run', 'omh_hp')
    words = ['bash', TOOLS / 'slurm_test.sh', 'cpu', 'job', host.config, tmp_path / 'run/iter_4.pth', '--work-dir']
    for ranks in (1, 2):
        start([*words, tmp_path / f'test{ranks}', *options], tmp_path / 'here', GPUS=str(ranks)).ended_well()
    assert scores_of(tmp_path / 'test1') == scores_of(tmp_path / 'test2')


@pytest.mark.slow
def test_mpi(setting: Callable, start: Callable, tmp_path: Path) -> None:
    host = setting('smooseg')
    words = ['mpirun', '-np', 2, sys.executable, TOOLS / 'train.py', host.config, '--launcher', 'mpi', '--work-dir']
    started = start(
        [*words, tmp_path / 'run', '--cfg-options', *host.options], tmp_path / 'here', MASTER_PORT=free_port()
    )
    started.ended_well()
    check_ranks(tmp_path / 'run', 'smooseg')


@pytest.mark.slow
def test_interrupted(setting: Callable, start: Callable, tmp_path: Path) -> None:
    """Ctrl-C ends all processes and says how to go on."""
    host = setting('omh_smooseg')
    options = [*host.options, 'train_cfg.max_iters=100000', 'train_cfg.val_interval=100000']
    options += ['train_dataloader.num_workers=1']
    words = ['bash', TOOLS / 'dist_train.sh', host.config, 2, '--work-dir', tmp_path / 'run', '--cfg-options']
    started = start([*words, *options], tmp_path / 'here')
    until = time.monotonic() + 600
    while not (tmp_path / 'run/last_checkpoint').is_file():
        assert started.process.poll() is None and time.monotonic() < until, started.log
        time.sleep(0.1)
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.wait(60) not in (0, None)
    started.leaves_none()
    assert 'interrupted: the last checkpoint is' in started.log.replace('\n', ' ')


@pytest.mark.slow
def test_half_the_batch_on_each_of_two_ranks(setting: Callable, start: Callable, tmp_path: Path) -> None:
    """Ranks see together the images that one process sees, batch by batch; the losses are of each rank's part."""
    host = setting('smooseg')
    for ranks, size in ((1, 4), (2, 2)):
        words = ['bash', TOOLS / 'dist_train.sh', host.config, ranks, '--work-dir', tmp_path / f'run{ranks}']
        options = ['--cfg-options', *host.options, f'train_dataloader.batch_size={size}']
        start([*words, *options], tmp_path / 'here').ended_well()
    alone = (tmp_path / 'run1/images_1_0.txt').read_text().splitlines()
    parts = [(tmp_path / f'run2/images_2_{rank}.txt').read_text().splitlines() for rank in range(2)]
    for whole, *halves in zip(alone, *parts):
        step, *images = whole.split()
        assert all(half.split()[0] == step for half in halves)
        assert sorted(images) == sorted(image for half in halves for image in half.split()[1:])


@pytest.mark.slow
def test_two_ranks_refit_as_one_does(setting: Callable, start: Callable, tmp_path: Path) -> None:
    """A finished run, resumed with the closing refit newly on."""
    host = setting('omh_smooseg')
    start(['bash', TOOLS / 'dist_train.sh', host.config, 1, '--work-dir', tmp_path / 'run1', '--cfg-options',
           *host.options], tmp_path / 'here').ended_well()  # fmt: skip
    shutil.copytree(tmp_path / 'run1', tmp_path / 'run2')
    found = []
    for ranks in (1, 2):
        folder = tmp_path / f'run{ranks}'
        last = next(folder.glob('iter_*.pth')).name
        (folder / 'last_checkpoint').write_text(str(folder / last))
        words = ['bash', TOOLS / 'dist_train.sh', host.config, ranks, '--work-dir', folder, '--resume', '--cfg-options']
        options = [*host.options, 'default_hooks.closing_refit.clusterings=all']
        start([*words, *options], tmp_path / 'here').ended_well()
        found.append(torch.load(folder / last, weights_only=True))
    one, other = (content['state_dict'] for content in found)
    assert 'before_closing_refit' in found[0] and one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, atol=1e-6, rtol=1e-5, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(('work', 'key'), [('neighbours', 'index'), ('features', 'folder')])
def test_preparation(work: str, key: str, setting: Callable, start: Callable, tmp_path: Path) -> None:
    """Two ranks make the files that one makes, byte by byte."""
    host = setting('omh_stego' if work == 'neighbours' else 'omh_hp')
    made = {}
    for ranks in (1, 2):
        target = tmp_path / f'made{ranks}'
        place = f'train_dataloader.dataset.index={target}/a.npz' if key == 'index' else (
            f'default_hooks.feature_cache.folder={target}'
        )
        words = ['torchrun', f'--nproc_per_node={ranks}', f'--master_port={free_port()}', TOOLS / 'prepare.py', work]
        options = [host.config, '--launcher', 'pytorch', '--device', 'cpu', '--cfg-options', *host.options, place]
        log = start([*words, *options, 'train_dataloader.batch_size=3'], tmp_path / 'here').ended_well()
        assert log.count('neighbour index written to' if work == 'neighbours' else 'feature cache of val:') == 1, log
        made[ranks] = {path.relative_to(target): path.read_bytes() for path in target.rglob('*') if path.is_file()}
    assert made[1].keys() == made[2].keys() and made[1]
    assert [path for path, content in made[1].items() if made[2][path] != content] == []


@pytest.mark.slow
@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_missing_variables(launcher: str, setting: Callable, start: Callable, tmp_path: Path) -> None:
    host = setting('smooseg')
    words = [sys.executable, TOOLS / 'train.py', host.config, '--launcher', launcher, '--work-dir', tmp_path / 'run']
    started = start([*words, '--cfg-options', *host.options], tmp_path / 'here')
    assert started.wait() == 1
    last = started.log.rstrip().splitlines()[-1]
    assert last.startswith(f'train.py: --launcher {launcher} needs the environment variables')
    assert 'Traceback' not in started.log
