"""Switches that a user sets for a process and those that it starts: options of commands, or the environment."""

from __future__ import annotations

import argparse
import os
from typing import Any

TRUST = 'OMH_TRUST'
"""Checkpoints are read as they are, and run what they hold."""
ACCEPT = 'OMH_ACCEPT_DIFFERENCES'
"""Checkpoints are used with other settings than those of their run."""


class Switch(argparse.Action):
    """An option without a value that sets the variable ``const`` of the environment at once."""

    def __init__(self, option_strings: list[str], dest: str, const: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, const=const, default=False, help=help)

    def __call__(self, parser: Any, namespace: argparse.Namespace, *_: Any) -> None:
        """Set it."""
        os.environ[str(self.const)] = '1'
        setattr(namespace, self.dest, True)


def is_on(variable: str) -> bool:
    """Whether the variable of a switch is set to anything but 0."""
    return os.environ.get(variable, '') not in ('', '0')
