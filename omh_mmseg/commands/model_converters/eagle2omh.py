"""Convert a published Lightning checkpoint of EAGLE to one that tools/test.py loads.

Example:
    python tools/model_converters/eagle2omh.py cocostuff.ckpt eagle_vit-s8_coco.pth --trust
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
    from omh_mmseg.models.converters.eagle import convert_eagle

    converted = convert_eagle(args.source, args.target, args.trust)
    print(
        f'wrote {args.target}: {converted.num_classes} classes and {converted.extra_clusters} extra clusters, code of '
        f'{converted.channels} channels'
    )
    if converted.left_out:
        print('left out, as nothing evaluates it: ' + ', '.join(converted.left_out))
    name = converted.backbone.short_name or 'BACKBONE'
    print(name_commands(
        f'test with:\n  python tools/test.py configs/eagle_{name}_DATA.py {args.target} --cfg-options '
        f'model.decode_head.channels={converted.channels} model.cluster_probe.extra_clusters={converted.extra_clusters}'
    ))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('eagle2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
