"""What a launcher tells each process of a run, in the variables that torch.distributed reads."""

from __future__ import annotations

import os
import shutil
import subprocess

from omh_mmseg.shipped import command_line, name_commands

VARIABLES: dict[str, tuple[str, str, str]] = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
"""Per launcher where a process finds its rank, the number of processes, and its number on its machine."""
LAUNCHERS = ('none', *VARIABLES)
DEFAULT_PORT = '29500'


def set_rank_variables(launcher: str) -> None:
    """Set ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` from what a launcher sets.

    Address and port that are set already stay. Without an address that of a run on one machine is this machine's; Slurm
    knows the first one of several.

    Args:
        launcher: ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: Variables of the launcher are missing, or this process has no GPU of its own.
    """
    names = VARIABLES[launcher]
    # torch.distributed.launch passes the number on the machine as an option, Slurm's may be absent in old versions.
    needed = names[:2] if launcher == 'slurm' else names
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f'--launcher {launcher} needs the environment variables {", ".join(needed)}, of which {", ".join(missing)} '
            f'{"is" if len(missing) == 1 else "are"} not set. {how_to_start(launcher)}; or leave --launcher out for a '
            'run in one process'
        )
    import torch

    rank, processes = (int(os.environ[name]) for name in names[:2])
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local = int(os.environ.get(names[2]) or rank % (visible or processes))
    if visible and local >= visible:
        raise ValueError(
            f'process {rank} is number {local} on its machine, counted from 0, and sees {visible} GPU(s): start at '
            f'most one process per GPU, and let each see all GPUs of its machine'
        )
    os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
    if not os.environ.get('MASTER_ADDR'):
        os.environ['MASTER_ADDR'] = _first_machine(launcher, processes)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(local))


def how_to_start(launcher: str) -> str:
    """What sets the variables of a launcher, and a command that starts a run under it."""
    if launcher == 'mpi':
        command = name_commands('mpirun -np PROCESSES python tools/train.py CONFIG --launcher mpi')
        return f"Open MPI's mpirun sets them: start with {command}"
    program, prefix = dict(pytorch=('torchrun', 'dist'), slurm=('srun', 'slurm'))[launcher]
    scripts = ' or '.join(command_line(f'{prefix}_{name}.sh') for name in ('train', 'test'))
    return f'{program} sets them: start with {scripts}'


def launched_rank(launcher: str) -> int:
    """Rank of this process before the launcher's processes have found each other; 0 without a launcher."""
    return int(os.environ.get(VARIABLES[launcher][0], 0)) if launcher in VARIABLES else 0


def present_launcher() -> str:
    """The launcher that started this process as one of several; ``'none'`` where there is none."""
    # Not SLURM_NTASKS, which the shell of a batch job has as well. What mpirun starts may bear the marks of srun, too.
    for launcher, mark, count in (
        ('pytorch', 'TORCHELASTIC_RUN_ID', 'WORLD_SIZE'),
        ('mpi', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
        ('slurm', 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'),
    ):
        if mark in os.environ and int(os.environ.get(count) or 1) > 1:
            return launcher
    return 'none'


def _first_machine(launcher: str, processes: int) -> str:
    """Address of rank 0's machine, which is this one where there is no other."""
    if launcher == 'pytorch':
        raise ValueError(
            '--launcher pytorch needs the environment variable MASTER_ADDR, the machine of rank 0, which is not set. '
            f'{how_to_start("pytorch")}'
        )
    if launcher == 'mpi' and int(os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE') or processes) != processes:
        raise ValueError(
            '--launcher mpi runs on several machines and the environment variable MASTER_ADDR is not set; set it for '
            'all of them to the name of the machine of rank 0, with mpirun -x MASTER_ADDR=NAME'
        )
    machines = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST') or ''
    # Slurm writes several as node[1-4] or node1,node2.
    if launcher == 'mpi' or not set(machines) & set(',['):
        return '127.0.0.1'
    listed: list[str] = []
    if shutil.which('scontrol'):
        command = ['scontrol', 'show', 'hostnames', machines]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        raise ValueError(
            f'--launcher slurm cannot tell the first of the machines {machines}, as scontrol does not name it; set the '
            'environment variable MASTER_ADDR to its name'
        )
    return listed[0]
