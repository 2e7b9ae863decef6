"""Figures that need no labels (docs/evaluation.md, Without labels): of a model, and beside the scores of sweeps.

Examples::

    python tools/analysis_tools/label_free.py figures CONFIG CHECKPOINT
    python tools/analysis_tools/label_free.py figures work_dirs/my_run --images 50
    python tools/analysis_tools/label_free.py correlation work_dirs/study

The second kind takes the work directories of sweeps, or a folder with some below it, and tells for each figure how well
it ranks the runs as a score does.
"""

from __future__ import annotations

import argparse

from omh_mmseg.choices import SPLITS
from omh_mmseg.commands.options import RunParser, add_config_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.utils.work_dirs import resolve_run


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True, parser_class=RunParser)
    figures = commands.add_parser('figures', help='of one model')
    add_run_arguments(figures)
    add_config_options(figures)
    correlation = commands.add_parser('correlation', help='with the scores of the runs of sweeps')
    correlation.add_argument('sweeps', nargs='+', metavar='DIR', help='work directories of sweeps, or a folder of some')
    correlation.add_argument('--score', default='mIoU', help='what the figures are compared with (default: mIoU)')
    for command in (figures, correlation):
        command.add_argument('--split', choices=SPLITS, default='val', help='images to measure (default: val)')
        command.add_argument('--images', type=int, default=100,
                             help='measure so many, spread evenly over the split (default: %(default)s)')  # fmt: skip
        command.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
        command.add_argument('--out', default='work_dirs/label_free', help='folder of tables (default: %(default)s)')
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    from omh_mmseg.analysis.label_free import analyse_model, analyse_sweeps
    from omh_mmseg.utils.config import read_config

    if args.command == 'figures':
        path, checkpoint = resolve_run(args.config, args.checkpoint)
        config = read_config(path, args.cfg_options)
        print(analyse_model(config, checkpoint, args.out, args.split, args.images, args.device))
    else:
        print(analyse_sweeps(args.sweeps, args.out, args.score, args.split, args.images, args.device))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('label_free.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
