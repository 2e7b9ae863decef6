"""Work directories of runs in place of their config file and checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omh_mmseg.shipped import TRAINED, list_configs, shipped_checkpoint, shipped_config
from omh_mmseg.utils.text import did_you_mean

LATEST = 'last_checkpoint'
"""Name of the file in which mmengine's ``CheckpointHook`` notes the newest checkpoint's path."""
WEIGHTS = ('.pth', '.pt', '.ckpt')


def config_file(path: str | os.PathLike[str]) -> str:
    """The config file itself, that of a shipped config by name, or the one that a run wrote into its work directory.

    Raises:
        FileNotFoundError: A directory without a config.
        ValueError: A directory with several.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        return shipped_config(path) or path
    configs = sorted(Path(path).glob('*.py'))
    if not configs:
        raise FileNotFoundError(
            f'{path} is not the work directory of a run: it holds no config file. Give a config file and a checkpoint'
        )
    if len(configs) > 1:
        listed = ', '.join(config.name for config in configs)
        raise ValueError(f'{path} holds several config files, {listed}: give one of them, and a checkpoint')
    return str(configs[0])


def checkpoint_file(path: str | os.PathLike[str]) -> str:
    """The checkpoint itself, that of a shipped config by name, or the newest of a work directory.

    That is the file that ``last_checkpoint`` names, in this directory where it was moved since; without that note, the
    only ``.pth`` file.

    Raises:
        FileNotFoundError: A directory without a checkpoint, or whose ``last_checkpoint`` names one that is not there.
        ValueError: A directory with several and no note.
    """
    path = os.fspath(path)
    if '://' in path or not os.path.isdir(path):
        return shipped_checkpoint(path) or path
    folder = Path(path)
    there = sorted(file.name for file in folder.glob('*.pth'))
    note = folder / LATEST
    if note.is_file():
        noted = note.read_text(errors='replace').strip()
        inside = folder / Path(noted).name
        if noted and inside.is_file():
            return str(inside)
        if noted and ('://' in noted or os.path.isfile(noted)):
            return noted
        hint = f'it holds {", ".join(there)}: give CONFIG and one of them' if there else 'it holds no .pth file'
        raise FileNotFoundError(f'{note} names {noted or "nothing"}, and there is no such checkpoint; {hint}')
    if not there:
        raise FileNotFoundError(f'{path} holds no checkpoint: neither {LATEST} nor a .pth file')
    if len(there) > 1:
        raise ValueError(
            f'{path} holds several checkpoints and no {LATEST} that names the newest: give CONFIG and one of '
            f'{", ".join(there)}'
        )
    return str(folder / there[0])


def resolve_run(config: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None) -> tuple[str, str]:
    """Config file and checkpoint of a run that is given by both, or by one name for both.

    That is a work directory, which also stands for either, or a shipped config with trained weights.

    Raises:
        FileNotFoundError: See `config_file` and `checkpoint_file`; or there is no ``config``.
        ValueError: Likewise; or a config file alone.
    """
    if checkpoint is None:
        _check_directory(config)
        checkpoint = config
    return config_file(config), checkpoint_file(checkpoint)


def resolve_runs(config: str, checkpoints: Sequence[str]) -> tuple[str, list[str]]:
    """The same for several checkpoints; of work directories alone the first one gives the config, and all count.

    Raises:
        FileNotFoundError: See `resolve_run`.
        ValueError: Likewise.
    """
    if not checkpoints:
        _check_directory(config)
    with_first = not checkpoints or (os.path.isdir(config) and all(map(os.path.isdir, checkpoints)))
    runs = [config, *checkpoints] if with_first else checkpoints
    return config_file(config), [checkpoint_file(run) for run in runs]


def stands_for_both(path: str) -> bool:
    """Whether a path alone gives config and checkpoint: a work directory, or a shipped config with trained weights."""
    return os.path.isdir(path) or shipped_checkpoint(path) is not None


def _check_directory(path: str | os.PathLike[str]) -> None:
    if stands_for_both(os.fspath(path)):
        return
    if os.path.isfile(path) or shipped_config(path):
        shipped = f' (trained weights are shipped for {" and ".join(TRAINED)})' if shipped_config(path) else ''
        raise ValueError(
            f'{path} is a config file: give a checkpoint after it, or the work directory of a run alone{shipped}'
        )
    known = did_you_mean(os.fspath(path), list_configs())
    raise FileNotFoundError(f'there is no config file or work directory {path} (looked from {Path.cwd()}){known}')


def is_checkpoint(path: str) -> bool:
    """Whether a path is meant as a checkpoint, by its name or as it is an address."""
    return '://' in path or path.lower().endswith(WEIGHTS)
