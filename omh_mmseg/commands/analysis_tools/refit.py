"""Bring the clusterings of a trained model to their fixed points; show the scores before and after.

    python tools/analysis_tools/refit.py work_dirs/my_run --save refitted.pth
    python tools/analysis_tools/refit.py CONFIG CHECKPOINT --clusterings level1 level2

A run does the same at its end with default_hooks.closing_refit.clusterings=all.
"""

from __future__ import annotations

import argparse

from omh_mmseg.choices import REFIT_POSITIONS
from omh_mmseg.commands.options import RunParser, add_config_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.utils.work_dirs import resolve_run


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument('--clusterings', nargs='+', default=['all'], metavar='NAME',
                        help='all, levels, probe, level1, level2, ...')  # fmt: skip
    parser.add_argument('--positions', type=int, default=REFIT_POSITIONS,
                        help='codes of each training image (default: %(default)s)')  # fmt: skip
    parser.add_argument('--delta', type=float, help='fixed weight of the size prior (default: chosen without labels)')
    parser.add_argument('--save', help='checkpoint to write')
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Refit, write and print."""
    from omh_mmseg.apis.refit import refit_checkpoint
    from omh_mmseg.utils.config import check_checkpoint, check_config, read_config
    from omh_mmseg.utils.tables import markdown_table

    config_path, checkpoint = resolve_run(args.config, args.checkpoint)
    check_config(config_path)
    check_checkpoint(checkpoint)
    config = read_config(config_path, args.cfg_options)
    which = args.clusterings[0] if len(args.clusterings) == 1 else args.clusterings
    rows = refit_checkpoint(config, checkpoint, which, args.positions, args.delta, args.save, args.device)
    print(markdown_table(rows))
    if args.save:
        print(f'checkpoint with the refitted clusterings: {args.save}')


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('refit.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
