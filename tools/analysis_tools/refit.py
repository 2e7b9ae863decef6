"""Bring the clusterings of a trained model to their fixed points; show the scores before and after.

    python tools/analysis_tools/refit.py work_dirs/my_run --save refitted.pth
    python tools/analysis_tools/refit.py CONFIG CHECKPOINT --clusterings level1 level2

A run does the same at its end with default_hooks.closing_refit.clusterings=all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.apis.refit import refit_checkpoint  # noqa: E402
from omh_mmseg.engine.refit import POSITIONS  # noqa: E402
from omh_mmseg.utils.config import add_config_options, check_checkpoint, check_config, read_config  # noqa: E402
from omh_mmseg.utils.tables import markdown_table  # noqa: E402
from omh_mmseg.utils.text import message_of  # noqa: E402
from omh_mmseg.utils.work_dirs import RunParser, add_run_arguments, resolve_run  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument('--clusterings', nargs='+', default=['all'], metavar='NAME',
                        help='all, probe, level1, level2, ...')  # fmt: skip
    parser.add_argument('--positions', type=int, default=POSITIONS, help=f'codes of each training image ({POSITIONS})')
    parser.add_argument('--delta', type=float, help='fixed weight of the size prior (default: chosen without labels)')
    parser.add_argument('--save', help='checkpoint to write')
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        config_path, checkpoint = resolve_run(args.config, args.checkpoint)
        check_config(config_path)
        check_checkpoint(checkpoint)
        config = read_config(config_path, args.cfg_options)
        which = 'all' if args.clusterings == ['all'] else args.clusterings
        rows = refit_checkpoint(config, checkpoint, which, args.positions, args.delta, args.save, args.device)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'refit.py: {message_of(error)}')
    print(markdown_table(rows))
    if args.save:
        print(f'checkpoint with the refitted clusterings: {args.save}')


if __name__ == '__main__':
    main()
