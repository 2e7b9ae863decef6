"""Convert a published Lightning checkpoint of EAGLE to one that tools/test.py loads.

Example:
    python tools/model_converters/eagle2omh.py cocostuff.ckpt eagle_vit-s8_coco.pth --trust
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
    from omh_mmseg.models.converters.eagle import convert_eagle_checkpoint

    tell_test('eagle', convert(args, convert_eagle_checkpoint), args.target)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('eagle2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
