"""Score a checkpoint by several protocols and print them side by side.

By default the full image, and STEGO's protocol with and without CRF and flip averaging. Others are named:

    python tools/analysis_tools/compare_protocols.py CONFIG CHECKPOINT --protocols stego stego-224 mmseg
    python tools/analysis_tools/compare_protocols.py work_dirs/my_run
"""

from __future__ import annotations

import argparse
import json

from omh_mmseg.commands.options import RunParser, add_config_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.structures.protocols import known_protocols, resolve
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.work_dirs import resolve_run

# docs/methods/evaluation.md 10.6: no CRF and no flip, CRF alone, both.
DEFAULT = ['mmseg', 'stego-no-crf-no-flip', 'stego-no-crf', 'hp', 'stego']


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument('--protocols', nargs='+', default=DEFAULT, metavar='NAME', help=known_protocols())
    parser.add_argument('--out', help='JSON file to write')
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Score, write and print."""
    from omh_mmseg.apis import init_model
    from omh_mmseg.apis.protocols import compare_protocols, protocol_table
    from omh_mmseg.utils.config import read_config

    for name in args.protocols:
        resolve(name)
    config_path, checkpoint = resolve_run(args.config, args.checkpoint)
    config = read_config(config_path, args.cfg_options)
    model = init_model(config, checkpoint, args.device)
    rows = compare_protocols(model, config, args.protocols, args.cfg_options)
    if args.out:
        with replaced_when_complete(args.out) as file:
            file.write(f'{json.dumps(rows, indent=1)}\n'.encode())
    print(protocol_table(rows))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('compare_protocols.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
