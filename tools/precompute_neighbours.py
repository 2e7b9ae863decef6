"""Make the neighbour index that a config's training needs.

Example:
    python tools/precompute_neighbours.py configs/omh_stego_vit-s8_coco.py --device cuda
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from mmengine.config import DictAction  # noqa: E402

from omh_mmseg.datasets.prepare_neighbours import prepare_neighbours  # noqa: E402
from omh_mmseg.engine import launch  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the training config')
    parser.add_argument('--num-neighbours', type=int, default=30, help='columns, the item itself included')
    parser.add_argument('--chunk-size', type=int, default=1024, help='rows per block of the search')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--force', action='store_true', help='replace an index that is there')
    parser.add_argument('--if-missing', action='store_true', help='keep an index that fits, even with --force')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='overrides, key=value')
    return parser.parse_args()


def main() -> None:
    """Build the index and say where it is."""
    args = parse_args()
    try:
        cfg = launch.read_config(args.config, args.cfg_options)
        path, made = prepare_neighbours(
            cfg, args.num_neighbours, args.chunk_size, args.device, args.force, args.if_missing
        )
    except KeyboardInterrupt:
        raise SystemExit('interrupted; nothing was written') from None
    except (OSError, ValueError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from None
    print(f'neighbour index {"written to" if made else "is up to date:"} {path.resolve()}')


if __name__ == '__main__':
    main()
