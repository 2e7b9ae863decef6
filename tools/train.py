"""Train a model of a config file, with the options of mmseg's own command."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.engine import launch  # noqa: E402
from omh_mmseg.utils.commands import started_with  # noqa: E402
from omh_mmseg.utils.downloads import DigestError, DownloadError  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: ./work_dirs/<config name>)')
    parser.add_argument('--resume', action='store_true', help='go on from the newest checkpoint in the work directory')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    launch.add_run_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        config = launch.load_config(args.config, args.work_dir, args.launcher, args.cfg_options)
        if args.amp:
            launch.use_mixed_precision(config)
    except (OSError, ValueError) as error:
        sys.exit(f'train.py: {error}')
    if args.resume:
        config.resume = True
    with started_with(args.config, args.cfg_options), launch.interruptible(config.work_dir):
        try:
            runner = launch.build_runner(config)
        except (OSError, ValueError) as error:
            sys.exit(f'train.py: {error}')
        try:
            runner.train()
        except (DigestError, DownloadError, FileNotFoundError) as error:
            sys.exit(f'train.py: {error}')


if __name__ == '__main__':
    main()
