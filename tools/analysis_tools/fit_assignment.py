"""Match a checkpoint's clusters to classes on a split, and keep the result for later scores and pictures.

The papers match on the split that they score. To match on the training split and score another:

    python tools/analysis_tools/fit_assignment.py CONFIG CHECKPOINT --split train --out train.json
    python tools/test.py CONFIG CHECKPOINT --cfg-options test_evaluator.assignment=train.json
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.apis.assignment import fit_assignment
from omh_mmseg.engine import launch  # noqa: E402
from omh_mmseg.evaluation.scores import MATCHINGS  # noqa: E402
from omh_mmseg.utils.config import SPLITS, check_checkpoint, check_config  # noqa: E402
from omh_mmseg.utils.text import message_of  # noqa: E402
from omh_mmseg.utils.work_dirs import RunParser, add_run_arguments, resolve_run  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument('--split', choices=SPLITS, default='train', help='labelled images to match on')
    parser.add_argument('--images', type=int, help='match on the first so many images of the split only')
    parser.add_argument('--matching', choices=MATCHINGS[:2], help="one to one or many to one (default: the metric's)")
    parser.add_argument('--out', default='assignment.json', help='file to write')
    parser.add_argument('--save', help='checkpoint to write with the assignment in it')
    parser.add_argument('--work-dir', help='folder of the log (default: as of test.py)')
    launch.add_run_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        config_path, checkpoint = resolve_run(args.config, args.checkpoint)
        check_config(config_path)
        check_checkpoint(checkpoint)
        config = launch.load_config(args.config, args.work_dir, args.launcher, args.cfg_options)
        found = fit_assignment(config, checkpoint, args.out, args.split, args.images, args.matching, args.save)
    except (OSError, ValueError) as error:
        sys.exit(f'fit_assignment.py: {message_of(error)}')
    print(f'classes of the clusters of {", ".join(found)}, matched on the {args.split} split, are in {args.out}')
    if args.save:
        print(f'checkpoint with them: {args.save}')


if __name__ == '__main__':
    main()
