"""What lies beside the package's modules: configs, weights, and commands by the name that this user runs them by.

In a checkout, an editable install included, they are ``configs/`` and ``tools/``; an installed package holds both in
``omh_mmseg/.mim`` and has entry points for the commands that are used most.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
from fnmatch import fnmatch
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ENTRY_POINTS = ('train', 'test', 'predict', 'prepare', 'demo', 'explore')
"""Commands that ``pip install`` brings as ``omh-<name>``."""
BACKBONES = '_base_/models/backbones'
"""Folder of the backbones' blocks below ``configs``."""
TRAINED = ('stego_vit-t8_demo', 'omh_stego_vit-t8_demo')
"""Configs whose trained weights are shipped; .dev_scripts/train_demo_checkpoints.py makes them."""
PACKAGE_SCHEME = 'omh_mmseg://'
"""Begins the address of a file in ``omh_mmseg/assets``."""
SCHEDULES = 'study'
"""Folder of the schedules of sweeps below ``configs``."""
_CONFIG = re.compile(rf'\bconfigs/({SCHEDULES}/)?(?=[\w.-]+\.py)')
_IN_TEXT = re.compile(r'(?:python )?\btools/([\w/]+)\.py')


def in_checkout() -> bool:
    """Whether the package lies in a checkout of the repository, and not among installed ones."""
    # A folder tools/ beside an installed package is somebody else's.
    return (PACKAGE.parent / 'tools' / 'train.py').is_file() and (PACKAGE.parent / 'pyproject.toml').is_file()


def install_extra(extra: str) -> str:
    """What installs an extra of the package: of the checkout, from wherever the user is, or by its name."""
    source = shlex.quote(f'{from_here(PACKAGE.parent)}[{extra}]') if in_checkout() else f"'omh-mmseg[{extra}]'"
    return f'pip install {source}'


def shipped_folder(name: str) -> Path:
    """``configs`` or ``tools``, wherever it is."""
    return PACKAGE.parent / name if in_checkout() else PACKAGE / '.mim' / name


def list_configs(pattern: str = '*') -> list[str]:
    """Names of the configs that the library ships, sorted.

    Args:
        pattern: What they match, with the wildcards of the shell: ``'omh_*_demo'``.

    Returns:
        Names that `config_path` takes, and the commands in place of a config file: ``'omh_stego_vit-t8_demo'``.
    """
    names = sorted(path.stem for path in shipped_folder('configs').glob('*.py'))
    return [name for name in names if fnmatch(name, pattern)]


def config_path(name: str) -> str:
    """Path of a shipped config.

    Args:
        name: One of `list_configs`, with or without ``.py``.

    Raises:
        FileNotFoundError: There is none; names similar ones.
    """
    stem = name.removesuffix('.py')
    if stem not in list_configs():
        close = difflib.get_close_matches(stem, list_configs(), n=3)
        hint = f'did you mean {" or ".join(close)}?' if close else 'omh_mmseg.list_configs() names all'
        raise FileNotFoundError(f'omh_mmseg ships no config {name}; {hint}')
    return from_here(shipped_folder('configs') / f'{stem}.py')


def checkpoint_path(name: str = TRAINED[-1]) -> str:
    """Path of the trained weights that the library ships for a config.

    They are the projection head, the probes and OMH's centres; the frozen backbone is read from its own file. Every
    command and `omh_mmseg.apis.SegmentationInferencer` find them by the config's name alone.

    Args:
        name: One of `list_configs`, with or without ``.py``; by default STEGO + OMH on the demo scenes.

    Raises:
        FileNotFoundError: There is no such config, none are shipped for it, or the installation lacks the file.
    """
    stem = Path(config_path(name)).stem
    if stem not in TRAINED:
        raise FileNotFoundError(
            f'omh_mmseg ships no trained weights for {name}, but for {" and ".join(TRAINED)}: train it, or give a '
            'checkpoint of yours'
        )
    path = asset_path(f'{PACKAGE_SCHEME}checkpoints/{stem}.pth')
    if not path.is_file():
        raise FileNotFoundError(
            f'the trained weights of {stem} are not where omh_mmseg ships them, at {path}: this installation is '
            f'incomplete. Install omh_mmseg anew, or train the config: {command_line("train.py")} {stem}'
        )
    return from_here(path)


def asset_path(address: str) -> Path:
    """Where the file of an address that begins with `PACKAGE_SCHEME` is shipped."""
    return PACKAGE / 'assets' / address.removeprefix(PACKAGE_SCHEME)


def command_line(tool: str) -> str:
    """How this user runs a command.

    Args:
        tool: The file below ``tools/``, such as ``'prepare.py'``.

    Returns:
        ``python tools/prepare.py`` in a checkout, from the current directory where that is above it, unless the
        process is itself a command that an installation brings; else ``omh-prepare``, or
        ``python -m omh_mmseg.commands...`` for what has no entry point.
    """
    if not tool.endswith('.py') or (in_checkout() and installed_command() is None):
        path = shlex.quote(from_here(shipped_folder('tools') / tool))
        return f'python {path}' if tool.endswith('.py') else path
    name = tool.removesuffix('.py')
    return f'omh-{name}' if name in ENTRY_POINTS else f'python -m omh_mmseg.commands.{name.replace("/", ".")}'


def installed_command() -> str | None:
    """The command that an installation brings and this process is, such as ``omh-train``; None for any other."""
    called = Path(sys.argv[0]).stem
    return called if called.startswith('omh-') else None


def name_commands(text: str) -> str:
    """A text whose ``python tools/<name>.py configs/<name>.py`` are, in an installed package, what its users have."""
    if in_checkout():
        return text
    return _CONFIG.sub('', _IN_TEXT.sub(lambda found: command_line(f'{found[1]}.py'), text))


def from_here(path: Path) -> str:
    """A path from the current directory where it lies below that, else the absolute one."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def shipped_config(path: str | os.PathLike[str]) -> str | None:
    """Path of the shipped config that a user names in place of a file: without a folder, and no such file is there."""
    text = os.fspath(path)
    if os.path.dirname(text) or os.path.exists(text) or text.removesuffix('.py') not in list_configs():
        return None
    return config_path(text)


def shipped_schedule(path: str | os.PathLike[str]) -> str | None:
    """Path of the shipped schedule of runs that a user names in place of a file, ``'refit'``; None for another."""
    text = os.fspath(path)
    file = shipped_folder('configs') / SCHEDULES / f'{text.removesuffix(".py")}.py'
    return None if os.path.dirname(text) or os.path.exists(text) or not file.is_file() else from_here(file)


def shipped_checkpoint(path: str | os.PathLike[str]) -> str | None:
    """Path of the trained weights of a shipped config that a user names so, see `shipped_config`; None without any.

    Raises:
        FileNotFoundError: The installation lacks the file.
    """
    config = shipped_config(path)
    return None if config is None or Path(config).stem not in TRAINED else checkpoint_path(os.fspath(path))
