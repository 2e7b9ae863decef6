"""Convert a published checkpoint of HP (Hidden Positives) to one that tools/test.py loads.

Example:
    python tools/model_converters/hp2omh.py cocostuff.pth hp_vit-s8_coco.pth --trust

The published files hold neither the project head nor the reference pools, which only training needs: tests need nothing
more, and a training that starts from the file (--cfg-options load_from=...) makes new ones.
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
    from omh_mmseg.models.converters.hp import convert_hp_checkpoint

    tell_test('hp', convert(args, convert_hp_checkpoint), args.target)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('hp2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
