"""Score k-means on the frozen features of a config, the floor that a host has to beat.

It says, too, which of its clusters live on the border of the image, before anything is trained.
"""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING

from omh_mmseg.commands.options import add_launcher_options
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import BACKBONES, shipped_folder
from omh_mmseg.utils.work_dirs import config_file

if TYPE_CHECKING:
    from mmengine.config import Config

def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a host')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='seeds of the k-means starts')
    parser.add_argument(
        '--backbone',
        metavar='"BLOCK [random] [KEY=VALUE ...]"',
        help="another backbone than the config's, as for sweep.py",
    )
    parser.add_argument('--per-image', type=int, default=100, help='positions drawn from each training image')
    add_launcher_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Read the config, with another backbone where one is named, and print."""
    from mmengine.registry import init_default_scope

    from omh_mmseg.study.job import SweepJob, ready_config
    from omh_mmseg.study.schedule_reader import parse_backbone
    from omh_mmseg.utils.config import read_config

    if args.backbone:
        swapped = parse_backbone(args.backbone, config_file(args.config), shipped_folder('configs') / BACKBONES)
        work_dir = f'work_dirs/kmeans_baseline/{swapped.slug}'
        config = ready_config(SweepJob(swapped, 0, work_dir, args.cfg_options or {}))
    else:
        config = read_config(args.config, args.cfg_options)
        init_default_scope(config.get('default_scope', 'mmseg'))
    print_scores(config, args)


def print_scores(config: Config, args: argparse.Namespace) -> None:
    """Fit k-means per seed and print its scores."""
    import torch
    from mmengine.dataset import pseudo_collate
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    from omh_mmseg.analysis.k_means import collect_features, score_centres
    from omh_mmseg.engine import launch
    from omh_mmseg.evaluation.border import BorderCounts, border_sentence
    from omh_mmseg.evaluation.heads import PROBE_FIELD
    from omh_mmseg.models.utils.k_means import fit_centres
    from omh_mmseg.registry import DATASETS, MODELS
    from omh_mmseg.utils.config import find_pairs_config

    model = MODELS.build(config.model)
    model.init_weights()
    model.eval()
    train = DataLoader(DATASETS.build(find_pairs_config(config)['dataset']), batch_size=8, collate_fn=pseudo_collate)
    features = collect_features(model, train, args.per_image, torch.Generator().manual_seed(0))
    loader = Runner.build_dataloader(config.val_dataloader)
    evaluator = launch.build_evaluator(config, loader.dataset.metainfo)
    results = []
    for seed in args.seeds:
        centres = fit_centres(features, config.model.num_classes, seed)
        border = BorderCounts({PROBE_FIELD: len(centres)}, model.backbone.stride)
        results.append(score_centres(model, centres, loader, evaluator, border))
        print(f'\nk-means, seed {seed}: mIoU {results[-1]["probe/mIoU"]:.2f}, aAcc {results[-1]["probe/aAcc"]:.2f}')
        print(border_sentence(border))
    for name in ('probe/mIoU', 'probe/aAcc'):
        values = [result[name] for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f'{name.removeprefix("probe/")}: {statistics.mean(values):.2f} +- {spread:.2f} over seeds {args.seeds}')


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('kmeans_baseline.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
