"""Score every level, and the host's probe, against labels of every granularity that the data set has.

The demo scenes have three, COCO-Stuff 27 classes and 171 leaves, Cityscapes 27 classes and 7 categories, Potsdam 3
classes and 6 surfaces. Give others with --groups.

    python tools/analysis_tools/hierarchy_scores.py CONFIG work_dirs/seed_*/iter_300.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.analysis.level_counts import add_analysis_options, add_label_options  # noqa: E402
from omh_mmseg.analysis.level_scores import analyse_scores
from omh_mmseg.utils.config import read_config  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoints', nargs='+', help='checkpoints of one or several seeds')
    add_analysis_options(parser, 'work_dirs/hierarchy_scores')
    add_label_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        config = read_config(args.config, args.cfg_options)
        print(analyse_scores(config, args.checkpoints, args.out, args.split, args.images, args.groups, args.device))
    except (OSError, ValueError) as error:
        sys.exit(f'hierarchy_scores.py: {error}')


if __name__ == '__main__':
    main()
