"""Score a checkpoint by several protocols and print them side by side.

By default the full image, and STEGO's protocol with and without CRF and flip averaging. Others are named:

    python tools/analysis_tools/compare_protocols.py CONFIG CHECKPOINT --protocols stego stego-224 mmseg
    python tools/analysis_tools/compare_protocols.py work_dirs/my_run
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.apis import init_model  # noqa: E402
from omh_mmseg.apis.protocols import compare_protocols, protocol_table  # noqa: E402
from omh_mmseg.evaluation.protocols import known_protocols, resolve  # noqa: E402
from omh_mmseg.utils.config import add_config_options, read_config  # noqa: E402
from omh_mmseg.utils.files import replaced_when_complete  # noqa: E402
from omh_mmseg.utils.text import message_of  # noqa: E402
from omh_mmseg.utils.work_dirs import RunParser, add_run_arguments, resolve_run  # noqa: E402

# docs/methods/evaluation.md 10.6: no CRF and no flip, CRF alone, both.
DEFAULT = ['mmseg', 'stego-no-crf-no-flip', 'stego-no-crf', 'hp', 'stego']


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument('--protocols', nargs='+', default=DEFAULT, metavar='NAME', help=known_protocols())
    parser.add_argument('--out', help='JSON file to write')
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        for name in args.protocols:
            resolve(name)
        config_path, checkpoint = resolve_run(args.config, args.checkpoint)
        config = read_config(config_path, args.cfg_options)
        model = init_model(config, checkpoint, args.device)
        rows = compare_protocols(model, config, args.protocols, args.cfg_options)
        if args.out:
            with replaced_when_complete(args.out) as file:
                file.write(f'{json.dumps(rows, indent=1)}\n'.encode())
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'compare_protocols.py: {message_of(error)}')
    print(protocol_table(rows))


if __name__ == '__main__':
    main()
