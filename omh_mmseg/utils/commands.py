"""The commands that messages name: as this user runs them, with the config of the run at hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from omh_mmseg.shipped import command_line

UNKNOWN_CONFIG = 'CONFIG'

_started_with: ContextVar[tuple[str, list[str]] | None] = ContextVar('started_with', default=None)


@contextmanager
def started_with(config: str | None, options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Let `suggested_command` name the config file of the run inside the context, and the settings given with it.

    Args:
        config: The config file as the user named it; None for a command without one.
        options: The values of ``--cfg-options``.
    """
    words = [f'{key}={value}' for key, value in (options or {}).items()]
    token = _started_with.set(None if config is None else (config, words))
    try:
        yield
    finally:
        _started_with.reset(token)


def suggested_command(tool: str, *words: str, config: str | None = None) -> str:
    """A command that makes what a run lacks.

    Args:
        tool: Its file below ``tools/``, and after a space the sub-command, such as ``'prepare.py neighbours'``.
        *words: Its options.
        config: The run's config file, where its command has not said `started_with`, as mmseg's own commands do not.

    Returns:
        The command with the run's config and settings; where these are unknown, what to put in their place follows.
    """
    file, *command = tool.split()
    started, settings = _started_with.get() or (config or UNKNOWN_CONFIG, None)
    options = ['--cfg-options', *settings] if settings else []
    line = f'{command_line(file)} {shlex.join([*command, started, *words, *options])}'
    if settings is not None:
        return line
    what = 'with the --cfg-options of this run, if it has any'
    return f'{line}\n({"CONFIG is the config of this run; " if started == UNKNOWN_CONFIG else ""}{what})'
