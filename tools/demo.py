"""Train STEGO and STEGO + OMH on the demo scenes, print the scores and draw the hierarchy; needs no download."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from omh_mmseg.engine import launch  # noqa: E402
from omh_mmseg.study import demo  # noqa: E402
from omh_mmseg.utils.settings import Settings  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder for runs, pictures and summary.json')
    parser.add_argument('--seed', type=int, default=0, help='seed of both runs')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, default={}, metavar='KEY=VALUE',
                        help='settings that replace those of both configs')
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = build_parser().parse_args(argv)
    options = {'randomness.seed': args.seed, **args.cfg_options}
    configs = [str(ROOT / 'configs' / f'{name}.py') for name in ('stego_vit-t8_demo', 'omh_stego_vit-t8_demo')]
    with launch.interruptible(args.work_dir):
        try:
            summary = demo.run_demo(*configs, args.work_dir, options)
        except (OSError, ValueError) as error:
            sys.exit(f'demo.py: {error}')
    print(demo.report(summary))
    print(f'summary: {Path(args.work_dir) / "summary.json"}')


if __name__ == '__main__':
    main()
