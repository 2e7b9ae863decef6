"""What the converters of checkpoints share: their options, and the line that tells how to test the result."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from omh_mmseg.shipped import name_commands


def converter_parser(
    doc: str | None, source: str = 'checkpoint of the reference implementation'
) -> argparse.ArgumentParser:
    """Options that each converter has; the first line of ``doc`` describes it, and ``source`` what it reads."""
    parser = argparse.ArgumentParser(description=(doc or '').splitlines()[0])
    parser.add_argument('source', metavar='SRC', help=source)
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--trust', action='store_true', help='read pickled objects too, with inert ones in place of all classes'
    )
    return parser


def as_options(values: Mapping[str, Any]) -> str:
    """Words for ``--cfg-options``."""
    return ' '.join(f'{name}={value}' for name, value in values.items())


def tell_test(host: str, backbone: str | None, target: str, options: Mapping[str, Any]) -> None:
    """Print the command that tests a converted file, with the settings that the file needs."""
    given = f' --cfg-options {as_options(options)}' if options else ''
    name = backbone or 'BACKBONE'
    print(name_commands(f'test with:\n  python tools/test.py configs/{host}_{name}_DATA.py {target}{given}'))
