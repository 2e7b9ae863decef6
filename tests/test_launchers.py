"""What launchers set, what is missing, and process groups on processors."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine import dist
from mmengine.model import MMDistributedDataParallel

import omh_mmseg  # noqa: F401
from omh_mmseg.engine import launch
from omh_mmseg.launchers import VARIABLES, present_launcher, set_rank_variables

OURS = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
MARKS = ('TORCHELASTIC_RUN_ID', 'SLURM_STEP_NUM_TASKS', 'SLURM_NODELIST', 'SLURM_STEP_NODELIST')
GIVEN = {
    'pytorch': dict(RANK='1', WORLD_SIZE='4', LOCAL_RANK='1', MASTER_ADDR='a', MASTER_PORT='7'),
    'slurm': dict(SLURM_PROCID='1', SLURM_NTASKS='4', SLURM_LOCALID='1', SLURM_NODELIST='node7'),
    'mpi': dict(OMPI_COMM_WORLD_RANK='1', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1'),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Without anything of a launcher; what a test sets is taken back."""
    for name in (*OURS, *MARKS, *(name for names in VARIABLES.values() for name in names)):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    yield monkeypatch


def variables() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in OURS}


@pytest.mark.parametrize('launcher', list(GIVEN))
def test_variables_of_torch_are_set(launcher: str, environment: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN[launcher].items():
        environment.setenv(name, value)
    set_rank_variables(launcher)
    address = dict(MASTER_ADDR='a', MASTER_PORT='7') if launcher == 'pytorch' else dict(
        MASTER_ADDR='127.0.0.1', MASTER_PORT='29500'
    )  # fmt: skip
    assert variables() == dict(RANK='1', WORLD_SIZE='4', LOCAL_RANK='1', **address)


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_what_is_set_already_stays(launcher: str, environment: pytest.MonkeyPatch) -> None:
    for name, value in (GIVEN[launcher] | dict(MASTER_ADDR='there', MASTER_PORT='8', LOCAL_RANK='0')).items():
        environment.setenv(name, value)
    set_rank_variables(launcher)
    assert variables() == dict(RANK='1', WORLD_SIZE='4', LOCAL_RANK='1', MASTER_ADDR='there', MASTER_PORT='8')


def test_slurm_names_the_first_of_several_machines(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (GIVEN['slurm'] | dict(SLURM_NODELIST='node[7-8]')).items():
        environment.setenv(name, value)
    environment.setenv('PATH', str(tmp_path))
    with pytest.raises(ValueError, match=r'first of the machines node\[7-8\].*MASTER_ADDR'):
        set_rank_variables('slurm')
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node[7-8]" ] && echo node7 && echo node8\n')
    scontrol.chmod(0o755)
    set_rank_variables('slurm')
    assert os.environ['MASTER_ADDR'] == 'node7'


def test_mpi_on_several_machines_needs_an_address(environment: pytest.MonkeyPatch) -> None:
    for name, value in (GIVEN['mpi'] | dict(OMPI_COMM_WORLD_LOCAL_SIZE='2')).items():
        environment.setenv(name, value)
    with pytest.raises(ValueError, match='mpirun -x MASTER_ADDR=NAME'):
        set_rank_variables('mpi')


@pytest.mark.parametrize('launcher', list(GIVEN))
def test_missing_variables_are_named_in_one_line(launcher: str, environment: pytest.MonkeyPatch) -> None:
    for name, value in list(GIVEN[launcher].items())[1:]:
        environment.setenv(name, value)
    missing = f'--launcher {launcher} needs .* of which {VARIABLES[launcher][0]} is not set'
    with pytest.raises(ValueError, match=missing) as caught:
        dist.init_dist(launcher)
    assert '\n' not in str(caught.value)


def test_more_processes_than_gpus(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(torch.cuda, 'is_available', lambda: True)
    environment.setattr(torch.cuda, 'device_count', lambda: 1)
    for name, value in GIVEN['pytorch'].items():
        environment.setenv(name, value)
    with pytest.raises(ValueError, match=r'process 1 is number 1 on its machine.*sees 1 GPU'):
        set_rank_variables('pytorch')


@pytest.mark.parametrize(
    ('given', 'launcher'),
    [
        (dict(), 'none'),
        (dict(RANK='0', WORLD_SIZE='4'), 'none'),
        (dict(TORCHELASTIC_RUN_ID='none', WORLD_SIZE='1'), 'none'),
        (dict(TORCHELASTIC_RUN_ID='none', WORLD_SIZE='2'), 'pytorch'),
        (GIVEN['mpi'], 'mpi'),
        (GIVEN['slurm'], 'none'),
        (GIVEN['slurm'] | dict(SLURM_STEP_NUM_TASKS='4'), 'slurm'),
        (GIVEN['mpi'] | GIVEN['slurm'] | dict(SLURM_STEP_NUM_TASKS='4'), 'mpi'),
    ],
)
def test_a_process_knows_its_launcher(given: dict, launcher: str, environment: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    assert present_launcher() == launcher


def test_several_processes_without_the_option_are_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / 'a.py'
    config.write_text('model = dict()\n')
    environment.chdir(tmp_path)
    environment.setenv('TORCHELASTIC_RUN_ID', 'none')
    environment.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='add --launcher pytorch'):
        launch.load_config(str(config))
    assert not (tmp_path / 'work_dirs').exists()
    assert launch.load_config(str(config), launcher='pytorch').launcher == 'pytorch'


def _join(launcher: str, options: dict) -> None:
    dist.init_dist(launcher, backend='nccl', timeout=60, **options)
    assert torch.distributed.get_backend() == 'gloo' and dist.get_dist_info() == (0, 1)
    wrapped = MMDistributedDataParallel(torch.nn.Linear(2, 2), device_ids=[0], broadcast_buffers=False)
    assert wrapped.device_ids is None
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize(('launcher', 'options'), [('pytorch', {}), ('slurm', dict(port=0)), ('mpi', {})])
def test_a_group_on_processors(launcher: str, options: dict, environment: pytest.MonkeyPatch) -> None:
    """gloo in place of nccl, and a model that is on no GPU, whatever the configs say."""
    one = dict(zip(VARIABLES[launcher], ('0', '1', '0'))) | dict(MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
    for name, value in one.items():
        environment.setenv(name, value)
    process = multiprocessing.get_context('fork').Process(target=_join, args=(launcher, options))
    process.start()
    process.join(60)
    assert process.exitcode == 0
