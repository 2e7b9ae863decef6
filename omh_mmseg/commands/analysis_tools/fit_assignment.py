"""Match a checkpoint's clusters to classes on a split, and keep the result for later scores and pictures.

The papers match on the split that they score. To match on the training split and score another:

    python tools/analysis_tools/fit_assignment.py CONFIG CHECKPOINT --split train --out train.json
    python tools/test.py CONFIG CHECKPOINT --cfg-options test_evaluator.assignment=train.json
"""

from __future__ import annotations

import argparse
import os

from omh_mmseg.choices import MATCHINGS, SPLITS
from omh_mmseg.commands.options import RunParser, add_launcher_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.utils.work_dirs import resolve_run


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument('--split', choices=SPLITS, default='train', help='labelled images to match on')
    parser.add_argument('--images', type=int, help='match on the first so many images of the split only')
    parser.add_argument('--matching', choices=MATCHINGS[:2], help="one to one or many to one (default: the metric's)")
    parser.add_argument('--out', default='assignment.json', help='file to write')
    parser.add_argument('--save', help='checkpoint to write with the assignment in it')
    parser.add_argument('--work-dir', help='folder of the log (default: as of test.py)')
    add_launcher_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Match and write."""
    from omh_mmseg.apis.assignment import fit_assignment
    from omh_mmseg.engine import launch
    from omh_mmseg.utils.config import check_checkpoint, check_config

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config_path, checkpoint = resolve_run(args.config, args.checkpoint)
    check_config(config_path)
    check_checkpoint(checkpoint)
    config = launch.load_config(args.config, args.work_dir, args.launcher, args.cfg_options)
    found = fit_assignment(config, checkpoint, args.out, args.split, args.images, args.matching, args.save)
    print(f'classes of the clusters of {", ".join(found)}, matched on the {args.split} split, are in {args.out}')
    if args.save:
        print(f'checkpoint with them: {args.save}')


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('fit_assignment.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
