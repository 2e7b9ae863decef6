"""Train one host on several backbones with several seeds; write one table and one picture.

Each backbone is the name of a block in configs/_base_/models/backbones (or the path of one), followed in the same
quotes by settings of its own and, for random weights, the floor of any comparison, by the word random. A label with
a colon before it is what tables and pictures call it:

    python tools/analysis_tools/compare_backbones.py configs/stego_mobilenet-v2_folder.py \
        --backbones mobilenet-v2 "last map: mobilenet-v2 backbone.out_indices=1" "resnet-18 random" --seeds 0 1 2 \
        --cfg-options data_root=/my/photos num_classes=20

The same command continues an interrupted comparison and tries failed runs again; finished runs are kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from omh_mmseg.engine import launch  # noqa: E402
from omh_mmseg.study.backbone_table import comparison_table  # noqa: E402
from omh_mmseg.study.backbones import compare_backbones, parse_contender  # noqa: E402
from omh_mmseg.utils.config import add_config_options, check_config  # noqa: E402

BLOCKS = ROOT / 'configs' / '_base_' / 'models' / 'backbones'


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of a host, on any backbone')
    parser.add_argument('--backbones', nargs='+', required=True, metavar='"[LABEL: ]BLOCK [random] [KEY=VALUE ...]"')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='seeds of the runs of each backbone')
    parser.add_argument('--work-dir', default='work_dirs/compare_backbones', help='folder of runs, table and picture')
    parser.add_argument('--timed-images', type=int, default=20, help='images whose prediction is timed')
    add_config_options(parser)
    return parser


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        check_config(args.config)
        launch.check_work_dir(args.work_dir)
        contenders = [parse_contender(text, BLOCKS) for text in args.backbones]
        runs = compare_backbones(
            args.config, contenders, args.seeds, args.work_dir, args.cfg_options, args.timed_images
        )
    except KeyboardInterrupt:
        sys.exit('interrupted; run the same command again to continue')
    except (OSError, ValueError) as error:
        sys.exit(f'compare_backbones.py: {error}')
    print(comparison_table(runs))
    print(f'runs.csv, table.csv, table.md and backbones.png are in {Path(args.work_dir).resolve()}')
    sys.exit(1 if any(run.get('error') for run in runs) else 0)


if __name__ == '__main__':
    main()
