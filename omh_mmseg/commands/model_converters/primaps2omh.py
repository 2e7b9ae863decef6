"""Convert a Lightning checkpoint of PriMaPs-EM to one that tools/test.py loads.

Example:
    python tools/model_converters/primaps2omh.py last.ckpt primaps_vit-s8_cityscapes.pth --trust

The file is one of the EM stage on a plain DINO backbone; its running and momentum prototypes are both kept.
"""

from __future__ import annotations

import argparse

from omh_mmseg.commands.model_converters.options import convert, converter_parser, tell_test
from omh_mmseg.commands.start import start


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    return converter_parser(__doc__)


def run(args: argparse.Namespace) -> None:
    """Convert, and print how to test the result."""
    from omh_mmseg.models.converters.primaps import convert_primaps_checkpoint

    tell_test('primaps', convert(args, convert_primaps_checkpoint), args.target)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('primaps2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
