"""Compare the clusters and the trees of several runs, such as seeds, by their predictions.

Labels are not needed.

Example::

    python tools/analysis_tools/hierarchy_stability.py CONFIG work_dirs/seed_*/iter_300.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.analysis.level_counts import add_analysis_options  # noqa: E402
from omh_mmseg.analysis.stability import analyse_stability
from omh_mmseg.utils.config import read_config  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoints', nargs='+', help='checkpoints of two or more runs of it')
    parser.add_argument('--permutations', type=int, default=1000, help='random parents behind the p-values')
    add_analysis_options(parser, 'work_dirs/hierarchy_stability')
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        config = read_config(args.config, args.cfg_options)
        print(
            analyse_stability(
                config, args.checkpoints, args.out, args.split, args.images, args.permutations, args.device
            )
        )
    except (OSError, ValueError) as error:
        sys.exit(f'hierarchy_stability.py: {error}')


if __name__ == '__main__':
    main()
