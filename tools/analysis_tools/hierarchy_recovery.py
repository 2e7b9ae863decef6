"""Compare the learned tree with a known one, beside other trees on the same code.

Others: k-means on the codes, each level on its own; agglomerative clustering of the finest centres; the plan's parents
dealt at random. The known tree is that of the data set's labels of several granularities, or comes from --groups.

    python tools/analysis_tools/hierarchy_recovery.py CONFIG work_dirs/seed_*/iter_300.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.analysis.level_counts import add_analysis_options, add_label_options  # noqa: E402
from omh_mmseg.analysis.recovery import RecoveryOptions, add_recovery_options, analyse_recovery  # noqa: E402
from omh_mmseg.utils.config import read_config  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoints', nargs='+', help='checkpoints of one or several seeds')
    parser.add_argument(
        '--control',
        nargs='+',
        metavar=('CONFIG', 'CHECKPOINT'),
        help='another model for comparison: the host alone, or with an OMH head that does not reach its features',
    )
    add_recovery_options(parser)
    add_analysis_options(parser, 'work_dirs/hierarchy_recovery')
    add_label_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    parser = build_parser()
    args = parser.parse_args()
    if args.control is not None and len(args.control) < 2:
        parser.error('--control takes a config and at least one checkpoint')
    options = RecoveryOptions(
        args.split, args.images, args.groups, args.labels, args.code_images, args.per_image, args.permutations,
        args.seed,
    )  # fmt: skip
    try:
        config = read_config(args.config, args.cfg_options)
        control = None
        if args.control is not None:
            control = (read_config(args.control[0], args.cfg_options), args.control[1:])
        print(analyse_recovery(config, args.checkpoints, args.out, options, control, args.device))
    except (OSError, ValueError) as error:
        sys.exit(f'hierarchy_recovery.py: {error}')


if __name__ == '__main__':
    main()
