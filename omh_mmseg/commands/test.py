"""Test a checkpoint with the evaluators of a config file, with the options of mmseg's own command."""

from __future__ import annotations

import argparse
import os

from omh_mmseg.commands.options import RunParser, add_launcher_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.structures.protocols import known_protocols, resolve
from omh_mmseg.utils.work_dirs import resolve_run


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=__doc__)
    add_run_arguments(parser)
    parser.add_argument(
        '--work-dir', help='folder for scores as JSON (default: that of the run, else ./work_dirs/<config name>)'
    )
    parser.add_argument('--out', help='folder for the predicted label maps, for offline evaluation')
    parser.add_argument('--show', action='store_true', help='show predictions in windows')
    parser.add_argument('--show-dir', help='folder for pictures of predictions (in vis_data/vis_image below it)')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays open')
    parser.add_argument('--tta', action='store_true', help="predict with the config's test-time augmentation")
    parser.add_argument(
        '--protocol', metavar='NAME', help=f'test as the literature does, not as the config says: {known_protocols()}'
    )
    parser.add_argument('--no-crf', action='store_true', help='leave the CRF of the protocol out')
    parser.add_argument('--no-flip', action='store_true', help='leave the flip averaging of the protocol out')
    add_launcher_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Test."""
    from omh_mmseg.engine import launch
    from omh_mmseg.evaluation.protocols import predict_scored_alone
    from omh_mmseg.utils.config import check_checkpoint, check_config

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.protocol:
        resolve(args.protocol)
    elif args.no_crf or args.no_flip:
        raise ValueError('--no-crf and --no-flip change a protocol; name it with --protocol')
    config_path, checkpoint = resolve_run(args.config, args.checkpoint)
    check_config(config_path)
    check_checkpoint(checkpoint)
    config = launch.load_config(args.config, args.work_dir, args.launcher, args.cfg_options)
    if args.show or args.show_dir:
        launch.draw_predictions(config, args.show, args.show_dir, args.wait_time)
    if args.protocol:
        launch.use_protocol(config, args.protocol, not args.no_crf, not args.no_flip, args.cfg_options)
    launch.check_crf(config)
    launch.check_inputs(config, 'test')
    predict_scored_alone(config)
    if args.tta:
        launch.use_test_time_augmentation(config)
    config.load_from, config.resume = checkpoint, False
    if args.out is not None:
        launch.keep_predictions(config, args.out)
    launch.build_runner(config, 'test').test()


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('test.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
