"""Fill the feature cache of a config before its run; an interrupted command is continued by the same one.

Example:
    python tools/cache_features.py configs/omh_stego_vit-s8_coco.py --device cuda --dtype float16
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.feature_cache.cached_features import DTYPES  # noqa: E402
from omh_mmseg.feature_cache.of_model import SPLITS  # noqa: E402
from omh_mmseg.preparation.features import describe_features, prepare_features  # noqa: E402
from omh_mmseg.utils.config import add_config_options, read_config  # noqa: E402
from omh_mmseg.utils.devices import default_device  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file of a host')
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS), help='default: all')
    parser.add_argument('--folder', help="of all caches; default: the config's, else data/feature_cache")
    parser.add_argument('--dtype', choices=sorted(DTYPES), help="default: the config's, else float32")
    parser.add_argument('--device', default=default_device(), help='where to compute')
    parser.add_argument('--dry-run', action='store_true', help='only say what would be made and what it needs')
    add_config_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Fill the caches and say where they are and how a run uses them."""
    args = build_parser().parse_args(argv)
    options = dict(splits=args.splits, folder=args.folder, dtype=args.dtype, device=args.device)
    try:
        config = read_config(args.config, args.cfg_options)
        if args.dry_run:
            print(describe_features(config, **options))
            return
        folders = prepare_features(config, **options)
    except KeyboardInterrupt:
        raise SystemExit('interrupted; run the same command again to continue') from None
    except (OSError, ValueError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from None
    for split, folder in folders.items():
        print(f'feature cache of {split}: {folder.resolve()}')
    used = [f'default_hooks.feature_cache.folder={next(iter(folders.values())).parent}']
    used += [f'default_hooks.feature_cache.dtype={args.dtype}'] if args.dtype else []
    print(f'train with --cfg-options {" ".join(used)}')


if __name__ == '__main__':
    main()
