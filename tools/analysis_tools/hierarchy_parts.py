"""Which clusters make a class: tables of parts and wholes, a picture of them, and the tree with its classes.

Example::

    python tools/analysis_tools/hierarchy_parts.py CONFIG CHECKPOINT --labels object
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.analysis.level_counts import add_analysis_options, add_label_options  # noqa: E402
from omh_mmseg.analysis.part_whole import analyse_parts
from omh_mmseg.utils.config import read_config  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('--labels', metavar='NAME', help='granularity of the classes (default: the finest)')
    add_analysis_options(parser, 'work_dirs/hierarchy_parts')
    add_label_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        config = read_config(args.config, args.cfg_options)
        print(
            analyse_parts(
                config, args.checkpoint, args.out, args.split, args.images, args.groups, args.labels, args.device
            )
        )
    except (OSError, ValueError) as error:
        sys.exit(f'hierarchy_parts.py: {error}')


if __name__ == '__main__':
    main()
