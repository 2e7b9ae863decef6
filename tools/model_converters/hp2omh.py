"""Convert a published checkpoint of HP (Hidden Positives) to one that tools/test.py loads.

Example:
    python tools/model_converters/hp2omh.py cocostuff.pth hp_vit-s8_coco.pth --trust

The published files hold neither the project head nor the reference pools, which only training needs: tests need nothing
more, and a training that starts from the file (--cfg-options load_from=...) makes new ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.models.converters.hp import convert_hp  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', metavar='SRC', help='checkpoint of the reference implementation')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--trust', action='store_true', help='read pickled objects too, with inert ones in place of all classes'
    )
    return parser


def main() -> None:
    """Convert, and print how to test the result."""
    args = build_parser().parse_args()
    try:
        converted = convert_hp(args.source, args.target, args.trust)
    except (OSError, ValueError) as error:
        sys.exit(f'hp2omh.py: {error}')
    print(f'wrote {args.target}: {converted.num_classes} classes, code of {converted.channels} channels')
    name = converted.backbone.short_name or 'BACKBONE'
    print(
        f'test with:\n  python tools/test.py configs/hp_{name}_DATA.py {args.target} '
        f'--cfg-options model.decode_head.channels={converted.channels}'
    )


if __name__ == '__main__':
    main()
