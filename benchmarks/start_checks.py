"""What a run checks before its first step and draws after its last one, on a folder of small images.

    python benchmarks/start_checks.py                      # 10,000 images with labels
    python benchmarks/start_checks.py --images 100000 --parent /fast/disk

The folder has images of 32 pixels in ``images/train`` and labels in ``labels/train``, as the folder configs read them.
Each row is one check of the library by itself; what it needs is made before the clock starts. Reading the config,
building the model and loading its weights are no checks, and making the neighbour index or the cache is work of its own
(docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import REPOSITORY, Benchmark, Question, Rows, Verdict, interleave
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from omh_mmseg.datasets.fingerprint import dataset_fingerprint, model_fingerprint
from omh_mmseg.datasets.label_probe import probe_labels
from omh_mmseg.datasets.neighbours.index import write_index
from omh_mmseg.datasets.neighbours.store import RowFile
from omh_mmseg.engine.hooks.checkpoint_check_hook import check_latest, check_resumable
from omh_mmseg.engine.work_dir_lock import work_dir_lock
from omh_mmseg.evaluation.scores import match_clusters, scores_from_confusion
from omh_mmseg.feature_cache.fingerprint import cache_fingerprint
from omh_mmseg.models.prediction.provenance import describe_model
from omh_mmseg.models.utils.loaded_weights import RESUME, fill_model
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.transport import Hierarchy
from omh_mmseg.utils.config import check_settings, read_config
from omh_mmseg.visualization import draw_confusion_matrix, draw_hierarchy_tree, draw_plan_matrices
from omh_mmseg.visualization.colours import class_colours, level_palettes

CONFIG = REPOSITORY / 'configs' / 'omh_stego_mobilenet-v2_folder.py'
CLASSES = 27
LIMIT = 2.0
NEIGHBOURS = 30
SIDE = 32


def write_folder(root: Path, images: int, distinct: int) -> None:
    """Images and labels below ``root``, of which all but a few are hard links."""
    generator = np.random.default_rng(0)
    for kind, suffix, shape, values in (
        ('images', '.jpg', (SIDE, SIDE, 3), 256),
        ('labels', '.png', (SIDE, SIDE), CLASSES),
    ):
        for split, count in (('train', images), ('val', min(images, 8))):
            folder = root / kind / split
            folder.mkdir(parents=True)
            for number in range(count):
                path = folder / f'{number:06d}{suffix}'
                if number < distinct:
                    Image.fromarray(generator.integers(0, values, shape, dtype=np.uint8)).save(path)
                else:
                    os.link(folder / f'{number % distinct:06d}{suffix}', path)


def read_folder_config(root: Path) -> Any:
    """The folder config on these images, with random weights."""
    init_default_scope('mmseg')
    options = dict(num_classes=CLASSES, data_root=str(root))
    config = read_config(str(CONFIG), options)
    config.model.backbone.checkpoint = None
    return config


def checks(root: Path, config: Any, model: nn.Module) -> dict[str, Callable[[], object]]:
    """By name, what is timed."""
    pairs_config = config.train_dataloader.dataset
    images_config = pairs_config['dataset']
    dataset = DATASETS.build(images_config)
    dataset.full_init()
    settings = dataset._label_settings()
    every = max(1, len(dataset) // 16)
    probed = [dataset.get_data_info(item) | settings for item in range(0, len(dataset), every)]
    backbone = config.model.backbone
    fingerprint = dataset_fingerprint(dataset)
    fingerprint |= model_fingerprint(model.backbone, backbone, config.model.data_preprocessor)
    index = root / 'index.npz'
    write_random_index(index, len(dataset), fingerprint)
    pairs = DATASETS.build(dict(pairs_config, index=str(index)))
    len(pairs)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad])
    checkpoint = dict(
        meta=dict(epoch=0, iter=1, seed=0),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
    )
    work_dir = root / 'run'
    work_dir.mkdir()
    torch.save(checkpoint, work_dir / 'iter_1.pth')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'iter_1.pth'))

    def listing() -> None:
        DATASETS.build(images_config).full_init()

    def lock() -> None:
        with ExitStack() as held:
            held.enter_context(work_dir_lock(work_dir))

    def latest() -> None:
        check_latest(work_dir, work_dir)
        check_resumable(checkpoint, optimizer, 'iter_1.pth')
        fill_model(model, checkpoint['state_dict'], RESUME)

    return {
        'settings of the config': lambda: check_settings(config),
        'listing, labels matched and probed': listing,
        'of it: probe of the labels': lambda: probe_labels(probed, choose=True),
        'digest of the data, neighbour index': lambda: dataset_fingerprint(dataset),
        'digest of the data, feature cache': lambda: cache_fingerprint(
            dataset, model.backbone, backbone, model.data_preprocessor, True
        ),
        'digest of the backbone': lambda: model_fingerprint(model.backbone, backbone, config.model.data_preprocessor),
        'neighbour index read and compared': lambda: len(DATASETS.build(dict(pairs_config, index=str(index)))),
        'provenance of the checkpoint': lambda: describe_model(model, config),
        'checkpoint fills the model': latest,
        'lock of the work directory': lock,
    }


def write_random_index(path: Path, items: int, fingerprint: Mapping[str, Any]) -> None:
    """An index of random neighbours."""
    rows = np.arange(items)
    generator = np.random.default_rng(0)
    others = (rows[:, None] + generator.integers(1, items, (items, NEIGHBOURS - 1))) % items
    neighbours = RowFile(path.with_suffix('.i32'), NEIGHBOURS, '<i4')
    neighbours.append(np.concatenate([rows[:, None], others], axis=1))
    with open(path, 'wb') as file:
        write_index(file, neighbours, fingerprint)


def pictures(root: Path, model: Any) -> dict[str, Callable[[], object]]:
    """The pictures at the end of a run, by name."""
    hierarchy: Hierarchy = model.omh_head.hierarchy()
    palettes = level_palettes(hierarchy, class_colours(None, CLASSES), None)
    counts = np.random.default_rng(0).integers(0, 1000, (CLASSES, CLASSES))
    scores = scores_from_confusion(counts, match_clusters(counts, 'hungarian'))
    classes = [f'class {number}' for number in range(CLASSES)]

    def confusion() -> None:
        draw_confusion_matrix(root / 'confusion.png', scores.counts, scores.assignment, classes, 'probe')

    return {
        'picture: confusion matrix, one of a head': confusion,
        'picture: plans': lambda: draw_plan_matrices(root / 'plans.png', hierarchy, palettes),
        'picture: tree': lambda: draw_hierarchy_tree(root / 'hierarchy.png', hierarchy, palettes),
    }


def start_checks(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """All checks and pictures in turn."""
    with tempfile.TemporaryDirectory(dir=args.parent) as folder:
        root = Path(folder)
        write_folder(root, args.images, args.distinct)
        config = read_folder_config(root)
        model = MODELS.build(config.model)
        model.backbone.init_weights()
        model.cfg = config
        found = checks(root, config, model) | pictures(root, model)
        alternatives = {name: (lambda run=run: run) for name, run in found.items()}
        samples = interleave(alternatives, args.repeats, progress=f'{args.images} images')
    rows: Rows = [dict(what=name, images=args.images, **sample.times()) for name, sample in samples.items()]
    slowest = max(samples, key=lambda name: samples[name].cpu_ms)
    seconds = samples[slowest].cpu_ms / 1e3
    return rows, [
        Verdict(
            f'no check and no picture takes over {LIMIT:.0f} s of the processor on {args.images} images',
            f'{slowest}: {seconds:.2f} s',
            seconds <= LIMIT,
        )
    ]


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            start_checks,
            'Checks before the first step, pictures after the last',
            repeats=3,
            options=dict(images=10000, distinct=64, parent=None),
            quick=dict(repeats=1),
        )
    },
)

if __name__ == '__main__':
    main()
