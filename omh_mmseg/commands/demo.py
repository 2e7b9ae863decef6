"""Train STEGO and STEGO + OMH on the demo scenes, print the scores and draw the hierarchy; needs no download."""

from __future__ import annotations

import argparse
from pathlib import Path

from omh_mmseg.commands.start import start
from omh_mmseg.shipped import config_path
from omh_mmseg.utils.settings import Settings

HOST = 'stego_vit-t8_demo'


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder for runs, pictures and summary.json')
    parser.add_argument('--seed', type=int, default=0, help='seed of both runs')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, default={}, metavar='KEY=VALUE',
                        help='settings that replace those of both configs')
    return parser


def run(args: argparse.Namespace) -> None:
    """Train, score, draw and report."""
    from omh_mmseg.engine import launch
    from omh_mmseg.study import demo

    options = {'randomness.seed': args.seed, **args.cfg_options}
    with launch.interruptible(args.work_dir):
        summary = demo.run_demo(config_path(HOST), config_path(f'omh_{HOST}'), args.work_dir, options)
    print(demo.report(summary))
    print(f'summary: {Path(args.work_dir) / "summary.json"}')


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('demo.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
