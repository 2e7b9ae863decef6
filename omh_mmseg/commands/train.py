"""Train a model of a config file, with the options of mmseg's own command."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path

from omh_mmseg.commands.options import add_accept_option, add_launcher_options
from omh_mmseg.commands.start import start
from omh_mmseg.launchers import launched_rank
from omh_mmseg.shipped import shipped_config
from omh_mmseg.utils.commands import started_with
from omh_mmseg.utils.work_dirs import LATEST, config_file


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, name of a shipped one, or with --resume the work directory of a run'
    )
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: ./work_dirs/<config name>)')
    parser.add_argument('--resume', action='store_true', help='go on from the newest checkpoint in the work directory')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    add_accept_option(parser)
    add_launcher_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Train."""
    from omh_mmseg.engine import launch
    from omh_mmseg.engine.work_dir_lock import work_dir_lock

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if Path(args.config).is_dir() and not args.resume and args.work_dir is None:
        raise ValueError(
            f'{args.config} is the work directory of a run: go on with it by --resume, or choose another one for a '
            'new run by --work-dir'
        )
    config = launch.load_config(args.config, args.work_dir, args.launcher, args.cfg_options)
    launch.check_inputs(config, 'train', 'val')
    if args.amp:
        launch.use_mixed_precision(config)
    moves = args.work_dir is not None and (Path(config_file(args.config)).parent / LATEST).is_file()
    if args.resume or Path(args.config).is_dir() or (moves and 'resume' not in (args.cfg_options or {})):
        config.resume = args.resume  # not how the run that left this config had begun
    if Path(args.config).is_dir() and args.resume and 'load_from' not in (args.cfg_options or {}):
        config.load_from = None  # what the run once started from
    started = started_with(args.config if shipped_config(args.config) else config_file(args.config), args.cfg_options)
    with ExitStack() as held, started, launch.interruptible(config.work_dir):
        if launched_rank(args.launcher) == 0:
            held.enter_context(work_dir_lock(config.work_dir))
        launch.build_runner(config, 'train').train()
        launch.tell_next(config.work_dir)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('train.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
