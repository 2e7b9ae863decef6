"""Score k-means on the frozen features of a config, the floor that a host has to beat.

It says, too, which of its clusters live on the border of the image, before anything is trained.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from omh_mmseg.analysis.k_means import collect_features, score_centres  # noqa: E402
from omh_mmseg.engine import launch  # noqa: E402
from omh_mmseg.evaluation.border import BorderCounts, border_sentence  # noqa: E402
from omh_mmseg.evaluation.heads import PROBE_FIELD  # noqa: E402
from omh_mmseg.models.utils.k_means import fit_centres  # noqa: E402
from omh_mmseg.registry import DATASETS, MODELS  # noqa: E402
from omh_mmseg.study.job import SweepJob, ready_config  # noqa: E402
from omh_mmseg.study.schedule_reader import BLOCKS, parse_backbone  # noqa: E402
from omh_mmseg.utils.config import find_pairs_config, read_config  # noqa: E402
from omh_mmseg.utils.text import message_of  # noqa: E402


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
    launch.add_run_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = build_parser().parse_args(argv)
    try:
        if args.backbone:
            run = parse_backbone(args.backbone, args.config, ROOT / BLOCKS)
            config = ready_config(SweepJob(run, 0, f'work_dirs/kmeans_baseline/{run.slug}', args.cfg_options or {}))
        else:
            config = read_config(args.config, args.cfg_options)
            init_default_scope(config.get('default_scope', 'mmseg'))
        print_scores(config, args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'kmeans_baseline.py: {message_of(error)}')


def print_scores(config: Config, args: argparse.Namespace) -> None:
    """Fit k-means per seed and print its scores."""
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


if __name__ == '__main__':
    main()
