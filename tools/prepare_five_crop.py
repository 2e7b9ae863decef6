"""Cut and store the five crops of a config's training images; an interrupted run is continued.

Example:
    python tools/prepare_five_crop.py configs/stego_vit-s8_coco.py --workers 8
    python tools/train.py configs/stego_vit-s8_coco.py \
        --cfg-options train_dataloader.dataset.dataset.stored=data/cropped/cocostuff27_five_crop_0.5
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmengine.config import DictAction  # noqa: E402

from omh_mmseg.preparation.five_crop import describe_five_crop, prepare_five_crop  # noqa: E402
from omh_mmseg.utils.config import read_config  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the training config')
    parser.add_argument(
        '--out', help="folder; default: the config's `stored`, else data/cropped/<data set>_five_crop_<ratio>"
    )
    parser.add_argument('--split', default='train', help='name of the folders below img/ and label/')
    parser.add_argument('--workers', type=int, default=min(8, os.cpu_count() or 1), help='processes; 0 for this one')
    parser.add_argument('--quality', type=int, default=75, help='of the JPEG files')
    parser.add_argument('--dry-run', action='store_true', help='only say what would be made and what it needs')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='overrides, key=value')
    return parser.parse_args()


def main() -> None:
    """Write the crops and say where they are."""
    args = parse_args()
    try:
        cfg = read_config(args.config, args.cfg_options)
        if args.dry_run:
            print(describe_five_crop(cfg, args.out, args.split, args.quality))
            return
        out, written = prepare_five_crop(cfg, args.out, args.split, args.workers, args.quality)
    except KeyboardInterrupt:
        raise SystemExit('interrupted; run the same command again to continue') from None
    except (OSError, ValueError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from None
    state = f'written for {written} images to' if written else 'are up to date:'
    print(f'five crops {state} {out.resolve()}')


if __name__ == '__main__':
    main()
