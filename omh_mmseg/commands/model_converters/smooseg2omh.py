"""Convert a Lightning checkpoint of SmooSeg to one that tools/test.py loads.

Example:
    python tools/model_converters/smooseg2omh.py cityscapes.ckpt smooseg_vit-s8_cityscapes.pth --trust

The parts are found by their shapes. Where the names of student and teacher prototypes do not tell them apart, the
message lists the candidates; choose with --student and --teacher.
"""

from __future__ import annotations

import argparse
from functools import partial

from omh_mmseg.commands.model_converters.options import convert, converter_parser, tell_test
from omh_mmseg.commands.start import start


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = converter_parser(__doc__)
    parser.add_argument('--student', metavar='NAME', help='entry of the file that holds the student prototypes')
    parser.add_argument('--teacher', metavar='NAME', help='entry of the file that holds the teacher prototypes')
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert, and print what was taken for what."""
    from omh_mmseg.models.converters.smooseg import convert_smooseg_checkpoint

    converted = convert(args, partial(convert_smooseg_checkpoint, student=args.student, teacher=args.teacher))
    for ours, theirs in converted.taken.items():
        print(f'  {ours:24} {theirs}')
    tell_test('smooseg', converted, args.target)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('smooseg2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
