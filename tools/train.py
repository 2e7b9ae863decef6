"""Train a model of a config file, with the options of mmseg's own command."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.engine import launch  # noqa: E402
from omh_mmseg.engine.work_dir_lock import work_dir_lock  # noqa: E402
from omh_mmseg.launchers import launched_rank  # noqa: E402
from omh_mmseg.utils.commands import started_with  # noqa: E402
from omh_mmseg.utils.text import message_of  # noqa: E402
from omh_mmseg.utils.work_dirs import LATEST, add_accept_option, config_file  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or with --resume the work directory of a run')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: ./work_dirs/<config name>)')
    parser.add_argument('--resume', action='store_true', help='go on from the newest checkpoint in the work directory')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    add_accept_option(parser)
    launch.add_run_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        if Path(args.config).is_dir() and not args.resume and args.work_dir is None:
            raise ValueError(
                f'{args.config} is the work directory of a run: go on with it by --resume, or choose another one for a '
                'new run by --work-dir'
            )
        config = launch.load_config(args.config, args.work_dir, args.launcher, args.cfg_options)
        if args.amp:
            launch.use_mixed_precision(config)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'train.py: {error}')
    moves = args.work_dir is not None and (Path(args.config).parent / LATEST).is_file()
    if args.resume or Path(args.config).is_dir() or (moves and 'resume' not in (args.cfg_options or {})):
        config.resume = args.resume  # not how the run that left this config had begun
    if Path(args.config).is_dir() and args.resume and 'load_from' not in (args.cfg_options or {}):
        config.load_from = None  # what the run once started from
    started = started_with(config_file(args.config), args.cfg_options)
    with ExitStack() as held, started, launch.interruptible(config.work_dir):
        try:
            if launched_rank(args.launcher) == 0:
                held.enter_context(work_dir_lock(config.work_dir))
            launch.build_runner(config, 'train').train()
        except (ImportError, OSError, ValueError) as error:
            sys.exit(f'train.py: {message_of(error)}')


if __name__ == '__main__':
    main()
