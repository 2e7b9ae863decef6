"""Make the neighbour index that a config's training needs; an interrupted run is continued.

Example:
    python tools/precompute_neighbours.py configs/omh_stego_vit-s8_coco.py --device cuda
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.datasets.neighbours.search import SEARCHES  # noqa: E402
from omh_mmseg.preparation.neighbours import describe_neighbours, prepare_neighbours  # noqa: E402
from omh_mmseg.utils.config import add_config_options, read_config  # noqa: E402
from omh_mmseg.utils.devices import default_device  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='the training config')
    parser.add_argument('--num-neighbours', type=int, default=30, help='columns, the item itself included')
    parser.add_argument(
        '--chunk-size', type=int, help='rows per block of the search, decides its memory: 1024 on a CPU, else 8192'
    )
    parser.add_argument(
        '--search', choices=SEARCHES, default='matmul', help='both are exact; faiss is an optional library'
    )
    parser.add_argument(
        '--train-mode-dropout',
        type=float,
        default=0.0,
        metavar='P',
        help="channel dropout of the features; 0.1 reproduces the reference's index, which is not deterministic there",
    )
    parser.add_argument('--dropout-seed', type=int, default=0, help='seed of --train-mode-dropout')
    parser.add_argument('--device', default=default_device())
    parser.add_argument('--force', action='store_true', help='replace an index that is there')
    parser.add_argument('--if-missing', action='store_true', help='keep an index that fits, even with --force')
    parser.add_argument('--dry-run', action='store_true', help='only say what would be made and what it needs')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Build the index and say where it is."""
    args = parse_args()
    options = dict(
        num_neighbours=args.num_neighbours,
        chunk_size=args.chunk_size,
        device=args.device,
        train_mode_dropout=args.train_mode_dropout,
        dropout_seed=args.dropout_seed,
        search=args.search,
    )
    try:
        cfg = read_config(args.config, args.cfg_options)
        if args.dry_run:
            print(describe_neighbours(cfg, **options))
            return
        path, made = prepare_neighbours(cfg, force=args.force, if_missing=args.if_missing, **options)
    except KeyboardInterrupt:
        raise SystemExit('interrupted; run the same command again to continue') from None
    except (OSError, ValueError, ModuleNotFoundError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from None
    print(f'neighbour index {"written to" if made else "is up to date:"} {path.resolve()}')


if __name__ == '__main__':
    main()
