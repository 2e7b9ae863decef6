"""Make what a training needs, once: data folders, labels as class numbers, five crops, neighbours, features.

Examples::

    python tools/prepare.py dataset coco-stuff27 --source ~/downloads/coco --dry-run
    python tools/prepare.py labels photos/colours/train --out photos/labels/train --colours '#800000' '#008000'
    python tools/prepare.py five-crop configs/stego_vit-s8_cityscapes.py --workers 8
    python tools/prepare.py neighbours configs/omh_stego_vit-s8_coco.py --device cuda
    python tools/prepare.py features configs/omh_stego_vit-s8_coco.py --device cuda --dtype float16
    torchrun --nproc_per_node=4 tools/prepare.py neighbours configs/omh_stego_vit-s8_coco.py --launcher pytorch

What is there already is kept, so that an interrupted command is continued by the same one. --dry-run says what would be
made and what it needs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omh_mmseg.choices import FEATURE_DTYPES, MAX_PIXELS, SEARCHES, SPLITS, UNKNOWN_RULES
from omh_mmseg.commands.options import add_config_options
from omh_mmseg.commands.start import start
from omh_mmseg.launchers import LAUNCHERS, present_launcher
from omh_mmseg.shipped import name_commands
from omh_mmseg.utils.commands import started_with

DATASET = """Bring downloaded files into the folders that the configs read.

    python tools/prepare.py dataset coco-stuff27 --source ~/downloads/coco --dry-run
    python tools/prepare.py dataset cityscapes27 --source leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip
    python tools/prepare.py dataset potsdam3 --source ~/downloads/potsdam --workers 8

Archives are extracted, extracted files are linked to (or copied with --copy). The exit status is 1 while something is
missing.
"""
LABELS = """Convert a folder of labels in colours to PNGs of class numbers.

    python tools/prepare.py labels photos/colours/train --out photos/labels/train --dry-run
    python tools/prepare.py labels photos/colours/train --out photos/labels/train --ignored '#000000'

The colours are those of classes.json beside or above the folder, of --classes FILE (JSON, or a text with a class per
line: road 128 64 128), or of --colours. Colours that are no class are counted and named; nothing is guessed. The exit
status is 1 while there are any.
"""
FIVE_CROP = """Cut and store the five crops of a config's training images.

    python tools/prepare.py five-crop configs/stego_vit-s8_coco.py --workers 8
    python tools/train.py configs/stego_vit-s8_coco.py \\
        --cfg-options train_dataloader.dataset.dataset.stored=data/cropped/cocostuff27_five_crop_0.5
"""
NEIGHBOURS = """Make the neighbour index that a config's training needs.

    python tools/prepare.py neighbours configs/omh_stego_vit-s8_coco.py --device cuda
"""
FEATURES = """Fill the feature cache of a config before its run.

    python tools/prepare.py features configs/omh_stego_vit-s8_coco.py --device cuda --dtype float16
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar='COMMAND', required=True)

    def add(name: str, text: str, work: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text.splitlines()[0], description=name_commands(text),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(work=work, config=None, cfg_options=None)
        return command

    dataset = add('dataset', DATASET, run_dataset)
    dataset.add_argument('dataset', choices=('coco-stuff27', 'cityscapes27', 'potsdam3'))
    dataset.add_argument(
        '--source', type=Path, nargs='+', required=True, help='folders or zip archives with the downloaded files'
    )
    dataset.add_argument('--out', type=Path, default=Path('data'), help='data_root of the configs (default: data)')
    dataset.add_argument('--copy', action='store_true', help='copy extracted files instead of linking to them')
    dataset.add_argument('--workers', type=int, default=4, help='threads')
    dataset.add_argument('--seed', type=int, default=0, help='potsdam3 without lists: seed of the split')

    labels = add('labels', LABELS, run_labels)
    labels.add_argument('source', type=Path, help='folder of the labels, searched recursively')
    labels.add_argument('--out', type=Path, required=True, help='folder for the PNGs, below which the paths stay')
    labels.add_argument('--classes', type=Path, metavar='FILE', help='file with class names and colours')
    labels.add_argument('--colours', nargs='+', default=[], metavar='#rrggbb', help='of each class, in order')
    labels.add_argument('--ignored', nargs='+', default=[], metavar='#rrggbb', help='colours that stand for no class')
    labels.add_argument(
        '--unknown', choices=UNKNOWN_RULES, default='error', help="what other colours are; 'ignore' writes 255"
    )
    labels.add_argument(
        '--tolerance', type=int, default=0, metavar='N',
        help='take a colour for a class whose own differs by at most N in each channel, as in JPEG files',
    )  # fmt: skip
    labels.add_argument('--background', metavar='#rrggbb', help='colour that transparent pixels are put on')
    labels.add_argument('--max-pixels', type=int, default=MAX_PIXELS, metavar='N', help='larger labels are refused')
    labels.add_argument('--workers', type=int, default=4, help='threads')

    crops = add('five-crop', FIVE_CROP, run_five_crop)
    crops.add_argument('config', help='the training config')
    crops.add_argument(
        '--out', help="folder; default: the config's `stored`, else data/cropped/<data set>_five_crop_<ratio>"
    )
    crops.add_argument('--split', default='train', help='name of the folders below img/ and label/')
    crops.add_argument('--workers', type=int, default=min(8, os.cpu_count() or 1), help='processes; 0 for this one')
    crops.add_argument('--quality', type=int, default=75, help='of the JPEG files')

    neighbours = add('neighbours', NEIGHBOURS, run_neighbours)
    neighbours.add_argument('config', help='the training config')
    neighbours.add_argument('--num-neighbours', type=int, default=30, help='columns, the item itself included')
    neighbours.add_argument(
        '--chunk-size', type=int, help='rows per block of the search, decides its memory: 1024 on a CPU, else 8192'
    )
    neighbours.add_argument(
        '--search', choices=SEARCHES, default='matmul', help='both are exact; faiss is an optional library'
    )
    neighbours.add_argument(
        '--train-mode-dropout',
        type=float,
        default=0.0,
        metavar='P',
        help="channel dropout of the features; 0.1 reproduces the reference's index, which is not deterministic there",
    )
    neighbours.add_argument('--dropout-seed', type=int, default=0, help='seed of --train-mode-dropout')
    neighbours.add_argument('--device', help='where to compute; default: the first GPU, else the CPU')
    neighbours.add_argument('--force', action='store_true', help='replace an index that is there')
    neighbours.add_argument('--if-missing', action='store_true', help='keep an index that fits, even with --force')

    features = add('features', FEATURES, run_features)
    features.add_argument('config', help='config file of a host')
    features.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS), help='default: all')
    features.add_argument('--folder', help="of all caches; default: the config's, else data/feature_cache")
    features.add_argument('--dtype', choices=FEATURE_DTYPES, help="default: the config's, else float32")
    features.add_argument('--device', help='where to compute; default: the first GPU, else the CPU')

    for command in (dataset, labels, crops, neighbours, features):
        command.add_argument('--dry-run', action='store_true', help='only say what would be made and what it needs')
    for command in (neighbours, features):
        command.add_argument(
            '--launcher', choices=LAUNCHERS, help='share the work with the processes that it started; default: as found'
        )
    for command in (crops, neighbours, features):
        add_config_options(command)
    return parser


def run_dataset(args: argparse.Namespace) -> int:
    """Link, copy or extract a data set; status 1 while something is missing."""
    from omh_mmseg.preparation.downloads.cityscapes27 import plan_cityscapes27
    from omh_mmseg.preparation.downloads.coco_stuff27 import plan_coco_stuff27
    from omh_mmseg.preparation.downloads.jobs import run_jobs
    from omh_mmseg.preparation.downloads.potsdam3 import plan_potsdam3

    plans: dict[str, Callable[..., Any]] = {
        'coco-stuff27': plan_coco_stuff27,
        'cityscapes27': plan_cityscapes27,
        'potsdam3': partial(plan_potsdam3, seed=args.seed),
    }
    plan = plans[args.dataset](args.source, args.out, copy=args.copy)
    pending = plan.pending()
    print(plan.report(pending))
    if args.dry_run:
        print('dry run: nothing was written')
    else:
        run_jobs(pending, args.workers)
        print(f'{plan.dataset} is below {args.out.absolute()}' + (', incomplete' if plan.missing else ''))
    return 1 if plan.missing else 0


def run_labels(args: argparse.Namespace) -> int:
    """Convert the labels and say where they are and what was unknown."""
    from omh_mmseg.datasets.label_colours import parse_colour
    from omh_mmseg.preparation.labels import plan_labels
    from omh_mmseg.structures.labels import IGNORED_LABEL

    background = None if args.background is None else parse_colour(args.background)
    plan = plan_labels(
        args.source, args.out, args.classes, args.colours, args.ignored,
        unknown=args.unknown, tolerance=args.tolerance, background=background, max_pixels=args.max_pixels,
    )  # fmt: skip
    converted = plan.run(not args.dry_run, args.workers)
    remark = f'; {IGNORED_LABEL} for {plan.report_unknown()}' if plan.counts else ''
    made = f'{converted} labels {"would be " * args.dry_run}converted to {len(plan.palette)} classes'
    there = f', {len(plan.files) - converted} are there already' if converted < len(plan.files) else ''
    print(f'{made}{there}: {args.out.absolute()}{remark}')
    return 0


def run_five_crop(args: argparse.Namespace) -> int:
    """Write the crops and say where they are."""
    from omh_mmseg.preparation.five_crop import describe_five_crop, prepare_five_crop
    from omh_mmseg.utils.config import read_config

    config = read_config(args.config, args.cfg_options)
    if args.dry_run:
        print(describe_five_crop(config, args.out, args.split, args.quality))
        return 0
    out, written = prepare_five_crop(config, args.out, args.split, args.workers, args.quality)
    state = f'written for {written} images to' if written else 'are up to date:'
    print(f'five crops {state} {out.resolve()}')
    return 0


def run_neighbours(args: argparse.Namespace) -> int:
    """Build the index and say where it is."""
    from mmengine.dist import is_main_process

    from omh_mmseg.preparation.neighbours import describe_neighbours, prepare_neighbours
    from omh_mmseg.utils.config import read_config
    from omh_mmseg.utils.devices import default_device

    config = read_config(args.config, args.cfg_options)
    options = dict(
        num_neighbours=args.num_neighbours,
        chunk_size=args.chunk_size,
        device=args.device or default_device(),
        train_mode_dropout=args.train_mode_dropout,
        dropout_seed=args.dropout_seed,
        search=args.search,
    )
    if args.dry_run:
        print(describe_neighbours(config, **options))
        return 0
    path, made = prepare_neighbours(config, force=args.force, if_missing=args.if_missing, **options)
    if not is_main_process():
        return 0
    print(f'neighbour index {"written to" if made else "is up to date:"} {path.resolve()}')
    return 0


def run_features(args: argparse.Namespace) -> int:
    """Fill the caches and say where they are and how a run uses them."""
    from mmengine.dist import is_main_process

    from omh_mmseg.preparation.features import describe_features, prepare_features
    from omh_mmseg.utils.config import read_config
    from omh_mmseg.utils.devices import default_device

    config = read_config(args.config, args.cfg_options)
    options = dict(splits=args.splits, folder=args.folder, dtype=args.dtype, device=args.device or default_device())
    if args.dry_run:
        print(describe_features(config, **options))
        return 0
    folders = prepare_features(config, progress=is_main_process(), **options)
    if not is_main_process():
        return 0
    for split, folder in folders.items():
        print(f'feature cache of {split}: {folder.resolve()}')
    used = [f'default_hooks.feature_cache.folder={next(iter(folders.values())).parent}']
    used += [f'default_hooks.feature_cache.dtype={args.dtype}'] if args.dtype else []
    print(f'train with --cfg-options {" ".join(used)}')
    return 0


def run(args: argparse.Namespace) -> int:
    """Do what the sub-command says, alone or with the processes of a launcher."""
    from omh_mmseg.utils.ranks import join_launcher

    try:
        if 'launcher' in args:
            join_launcher(args.launcher)
        elif present_launcher() != 'none':
            raise ValueError('this command runs in one process, and its launcher has started several')
        with started_with(args.config, args.cfg_options):
            return args.work(args)
    except KeyboardInterrupt:
        raise SystemExit('interrupted; run the same command again to continue') from None


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('prepare.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
