"""Convert a Lightning checkpoint of PriMaPs-EM to one that tools/test.py loads.

Example:
    python tools/model_converters/primaps2omh.py last.ckpt primaps_vit-s8_cityscapes.pth --trust

The file is one of the EM stage on a plain DINO backbone; its running and momentum prototypes are both kept.
"""

from __future__ import annotations

import argparse

from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('source', metavar='SRC', help='Lightning checkpoint of the reference implementation')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--trust', action='store_true', help='read pickled objects too, with inert ones in place of all classes'
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert, and print how to test the result."""
    from omh_mmseg.models.converters.primaps import convert_primaps

    converted = convert_primaps(args.source, args.target, args.trust)
    print(f'wrote {args.target}: {converted.num_classes} classes, prototypes of {converted.channels} channels')
    name = converted.backbone.short_name or 'BACKBONE'
    print(name_commands(f'test with:\n  python tools/test.py configs/primaps_{name}_DATA.py {args.target}'))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('primaps2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
