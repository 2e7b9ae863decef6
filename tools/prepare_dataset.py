"""Bring downloaded files into the folders that the configs read.

    python tools/prepare_dataset.py coco-stuff27 --source ~/downloads/coco --dry-run
    python tools/prepare_dataset.py cityscapes27 --source leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip
    python tools/prepare_dataset.py potsdam3 --source ~/downloads/potsdam --workers 8

Archives are extracted, extracted files are linked to (or copied with --copy). What is there already is kept, so an
interrupted run goes on when it is started again. The exit status is 1 while something is missing.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.preparation.downloads import (  # noqa: E402
    plan_cityscapes27,
    plan_coco_stuff27,
    plan_potsdam3,
    run_jobs,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dataset', choices=('coco-stuff27', 'cityscapes27', 'potsdam3'))
    parser.add_argument(
        '--source', type=Path, nargs='+', required=True, help='folders or zip archives with the downloaded files'
    )
    parser.add_argument('--out', type=Path, default=Path('data'), help='data_root of the configs (default: data)')
    parser.add_argument('--dry-run', action='store_true', help='report what there is, and write nothing')
    parser.add_argument('--copy', action='store_true', help='copy extracted files instead of linking to them')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    parser.add_argument('--seed', type=int, default=0, help='potsdam3 without lists: seed of the split')
    return parser.parse_args()


def main() -> None:
    """Plan, report, and unless it is a dry run, carry out."""
    args = parse_args()
    plans = {
        'coco-stuff27': plan_coco_stuff27,
        'cityscapes27': plan_cityscapes27,
        'potsdam3': partial(plan_potsdam3, seed=args.seed),
    }
    try:
        plan = plans[args.dataset](args.source, args.out, copy=args.copy)
        pending = plan.pending()
        print(plan.report(pending))
        if args.dry_run:
            print('dry run: nothing was written')
        else:
            run_jobs(pending, args.workers)
            print(f'{plan.dataset} is below {args.out.absolute()}' + (', incomplete' if plan.missing else ''))
    except KeyboardInterrupt:
        raise SystemExit('interrupted; start the command again to go on') from None
    except (OSError, ValueError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from None
    sys.exit(1 if plan.missing else 0)


if __name__ == '__main__':
    main()
