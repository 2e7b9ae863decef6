"""How every command starts, and how it ends where its user can remedy something."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from omh_mmseg.shipped import installed_command
from omh_mmseg.stack import keep_imports
from omh_mmseg.utils.text import message_of


def start(
    name: str, parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int | None],
    argv: list[str] | None = None,
) -> None:  # fmt: skip
    """Read the arguments and run a command.

    Args:
        name: Its file below ``tools/``, without folder.
        parser: Of its options.
        run: Imports what the command needs and carries it out; the exit status, None for 0.
        argv: Arguments; None for those of the process.

    Raises:
        SystemExit: The status is not 0, or an error has a remedy, which is then all that is said.
    """
    args = parser.parse_args(argv)
    if argv is None:
        keep_imports()
    try:
        status = run(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'{installed_command() or name}: {message_of(error)}')
    if status:
        sys.exit(status)
