"""Texts of messages."""

from __future__ import annotations

import os
import shlex
import sys


def first_few(names: list[str], limit: int = 3) -> str:
    """The first names of a list and how many more there are, for error messages."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def suggested_command(*flags: str, tool: str = 'precompute_neighbours.py') -> str:
    """The command that makes what the run that is going on lacks, as far as its command line tells.

    Args:
        *flags: Options of that command.
        tool: Its file in ``tools/``.
    """
    arguments = sys.argv[1:]
    configs = [argument for argument in arguments if argument.endswith(('.py', '.json', '.yaml', '.yml'))]
    config = next((argument for argument in configs if os.path.isfile(argument)), 'CONFIG')
    options: list[str] = []
    if config != 'CONFIG' and '--cfg-options' in arguments:
        options.append('--cfg-options')
        for argument in arguments[arguments.index('--cfg-options') + 1 :]:
            if argument.startswith('-'):
                break
            options.append(argument)
    return shlex.join(['python', f'tools/{tool}', config, *flags, *options])
