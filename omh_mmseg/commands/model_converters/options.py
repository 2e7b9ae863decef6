"""What the converters of checkpoints share: their options, and the line that tells how to test the result."""

from __future__ import annotations

import argparse

from omh_mmseg.shipped import name_commands


def converter_parser(doc: str | None) -> argparse.ArgumentParser:
    """Options that each converter has; the first line of ``doc`` describes it."""
    parser = argparse.ArgumentParser(description=(doc or '').splitlines()[0])
    parser.add_argument('source', metavar='SRC', help='checkpoint of the reference implementation')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--trust', action='store_true', help='read pickled objects too, with inert ones in place of all classes'
    )
    return parser


def tell_test(host: str, backbone: str | None, target: str, **options: int) -> None:
    """Print the command that tests a converted file, with the settings of the model that the file needs."""
    words = ''.join(f' model.{name.replace("__", ".")}={value}' for name, value in options.items())
    given = f' --cfg-options{words}' if words else ''
    name = backbone or 'BACKBONE'
    print(name_commands(f'test with:\n  python tools/test.py configs/{host}_{name}_DATA.py {target}{given}'))
