"""Sparsity of the plans and effective parents: over the training of runs, and against the entropy weight.

Runs are work directories with the figures that a training logs; checkpoints have their plans solved anew:

    python tools/analysis_tools/hierarchy_plans.py --runs work_dirs/seed_0 work_dirs/seed_1
    python tools/analysis_tools/hierarchy_plans.py --checkpoints work_dirs/seed_*/iter_300.pth \
        --entropy-weights 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.analysis.plans import analyse_plans

WEIGHTS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', nargs='+', default=[], metavar='DIR', help='work directories of trainings')
    parser.add_argument('--checkpoints', nargs='+', default=[], metavar='FILE', help='checkpoints with an OMH head')
    parser.add_argument('--entropy-weights', nargs='+', type=float, default=WEIGHTS, help='(default: %(default)s)')
    parser.add_argument('--out', default='work_dirs/hierarchy_plans', help='folder of results (default: %(default)s)')
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        print(analyse_plans(args.out, args.runs, args.checkpoints, args.entropy_weights))
    except (OSError, ValueError) as error:
        sys.exit(f'hierarchy_plans.py: {error}')


if __name__ == '__main__':
    main()
