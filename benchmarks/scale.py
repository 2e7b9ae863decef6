"""A training of COCO-Stuff's size, rehearsed on small pictures: time and peak memory of each part.

    python benchmarks/scale.py                            # 97,702 images, 488,510 crops, about five minutes
    python benchmarks/scale.py --parent /fast/disk

The folder has COCO-Stuff's layout and as many images, which are hard links to a few distinct ones, as decoding is not
what is asked here. Each part is measured in a process of its own; its memory is the rise of the resident memory. The
neighbour search is that of random directions: some blocks are timed and the time of all is extrapolated. The training
is of a tiny backbone on crops of 32 pixels, by tools/dist_train.sh; its memory is the largest of any of its processes.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import GIB, MIB, REPOSITORY, Benchmark, Question, Rows, Verdict, measure_apart, peak_rise
from hosts import TINY
from mmengine.dataset import pseudo_collate, worker_init_fn
from mmengine.registry import init_default_scope
from neighbour_search import write_features
from PIL import Image
from torch.utils.data import DataLoader

from omh_mmseg.datasets.fingerprint import dataset_fingerprint, model_fingerprint
from omh_mmseg.datasets.neighbours.index import write_index
from omh_mmseg.datasets.neighbours.search import neighbour_blocks
from omh_mmseg.datasets.neighbours.store import RowFile
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.utils.config import read_config

BASE = REPOSITORY / 'configs' / 'omh_stego_vit-s8_coco.py'
CROP = 32
NEIGHBOURS = 30
START_SECONDS, START_GIB, SEARCH_GIB, WORKER_MIB = 60, 2, 4, 32
SETTLED = 50
"""Steps after which a worker has loaded what it needs once."""


def write_folder(root: Path, images: int, distinct: int) -> None:
    """COCO-Stuff's layout below ``root``: hard links to a few pictures, and the lists of both splits."""
    generator = np.random.default_rng(0)
    for split, count, name in (
        ('train2017', images, 'Coco164kFull_Stuff_Coarse.txt'),
        ('val2017', min(images, 8), 'Coco164kFull_Stuff_Coarse_7.txt'),
    ):
        ids = [f'{number:012d}' for number in range(count)]
        for kind, suffix, shape in (('images', '.jpg', (64, 64, 3)), ('annotations', '.png', (64, 64))):
            folder = root / 'cocostuff' / kind / split
            folder.mkdir(parents=True)
            for number, name_of_image in enumerate(ids):
                path = folder / f'{name_of_image}{suffix}'
                if number < distinct:
                    Image.fromarray(generator.integers(0, 92, shape, dtype=np.uint8)).save(path)
                else:
                    os.link(folder / f'{ids[number % distinct]}{suffix}', path)
        lists = root / 'cocostuff' / 'curated' / split
        lists.mkdir(parents=True)
        (lists / name).write_text('\n'.join(ids))


def write_config(root: Path) -> Path:
    """STEGO + OMH on that folder, with a tiny backbone of random weights."""
    path, arch = root / 'scale.py', TINY | dict(_delete_=True)
    path.write_text(
        f'_base_ = {str(BASE)!r}\ndata_root = {str(root)!r}\n'
        f'model = dict(backbone=dict(checkpoint=None, backbone=dict(arch={arch!r}, img_size={CROP})))\n'
        f'train_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(index={str(root / "index.npz")!r}))\n'
    )
    return path


def options_of(root: Path) -> dict[str, Any]:
    """Crops of few pixels, so that the steps cost little."""
    return {f'train_dataloader.dataset.dataset.dataset.pipeline.{place}.size': CROP for place in (3, 4)}


def train_set(root: Path) -> Any:
    """Config of the train set: pairs of crops."""
    init_default_scope('mmseg')
    return read_config(str(root / 'scale.py'), options_of(root)).train_dataloader.dataset


def measure(part: str, folder: str, case: dict[str, Any]) -> dict[str, Any]:
    """Seconds and peak memory of a part, and what else there is to say; to be called in a fresh process."""
    torch.set_num_threads(case['threads'])
    root = Path(folder)
    pairs = train_set(root)
    more: dict[str, Any] = {}
    work: Callable[[], Any]
    if part == 'data set':
        work = lambda: DATASETS.build(pairs['dataset']['dataset']).full_init()  # noqa: E731
    elif part == 'index file':
        work = lambda: _write_index(root, pairs, case)  # noqa: E731
    elif part == 'start: data set, crops, index, check':
        work = lambda: len(DATASETS.build(pairs))  # noqa: E731
    elif part == 'search, some blocks':
        work = lambda: more.update(_search(root, case))  # noqa: E731
    else:
        work = lambda: more.update(_load(DATASETS.build(pairs), case))  # noqa: E731
    began, cpu = time.perf_counter(), time.process_time()
    rise = peak_rise(work)
    return dict(seconds=time.perf_counter() - began, cpu=time.process_time() - cpu, rss=rise, **more)


def _write_index(root: Path, pairs: Any, case: dict[str, Any]) -> None:
    """An index of random neighbours that belongs to the config."""
    config = read_config(str(root / 'scale.py'), options_of(root))
    dataset = DATASETS.build(pairs['dataset'])
    backbone = MODELS.build(config.model.backbone)
    backbone.init_weights()
    fingerprint = dataset_fingerprint(dataset)
    fingerprint |= model_fingerprint(backbone, config.model.backbone, config.model.data_preprocessor)
    items = len(dataset)
    neighbours = RowFile(root / 'neighbours.i32', NEIGHBOURS, '<i4')
    generator = np.random.default_rng(0)
    for first in range(0, items, 65536):
        rows = np.arange(first, min(first + 65536, items))
        others = (rows[:, None] + generator.integers(1, items, (len(rows), NEIGHBOURS - 1))) % items
        neighbours.append(np.concatenate([rows[:, None], others], axis=1))
    with open(root / 'index.npz', 'wb') as file:
        write_index(file, neighbours, fingerprint)


def _search(root: Path, case: dict[str, Any]) -> dict[str, Any]:
    features = RowFile(root / 'features.f32', case['channels'], '<f4', case['items'])
    blocks = neighbour_blocks(features, NEIGHBOURS, case['chunk_size'])
    seconds = []
    for _ in range(case['blocks']):
        began = time.perf_counter()
        next(blocks)
        seconds.append(time.perf_counter() - began)
    return dict(block=float(np.median(seconds)))


def _load(dataset: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Growth of the workers' own memory between step `SETTLED` and the last one."""
    generator = torch.Generator().manual_seed(0)
    batches = torch.randint(len(dataset), (case['steps'], 8), generator=generator).tolist()
    loader = DataLoader(
        dataset, batch_sampler=batches, num_workers=case['workers'], collate_fn=pseudo_collate,
        worker_init_fn=lambda number: worker_init_fn(number, case['workers'], 0, 0),
    )  # fmt: skip
    iterator = iter(loader)
    settled = min(SETTLED, case['steps'] // 2)
    for step, _ in enumerate(iterator, start=1):
        if step == settled:
            before = [_own_memory(worker.pid) for worker in iterator._workers]
        if step == case['steps'] - 2 * case['workers']:
            after = [_own_memory(worker.pid) for worker in iterator._workers]
    return dict(growth=max(late - early for early, late in zip(before, after)))


def _own_memory(process: int) -> int:
    """Bytes that a process does not share: what it has written to since it was forked."""
    text = Path(f'/proc/{process}/smaps_rollup').read_text()
    return 1024 * sum(int(size) for size in re.findall(r'Private_Dirty:\s+(\d+) kB', text))


def train(root: Path, ranks: int, steps: int) -> dict[str, Any]:
    """Seconds up to the first step and of all, and the largest memory of a process, of a run of several ranks."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    options = options_of(root) | {
        'train_cfg.max_iters': steps,
        'train_cfg.val_interval': steps + 1,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': steps,
        'model.omh_head.reach.begin': min(10, steps - 1),
    }
    words = ['bash', str(REPOSITORY / 'tools' / 'dist_train.sh'), str(root / 'scale.py'), str(ranks), '--work-dir']
    words += [str(root / 'run'), '--cfg-options', *(f'{key}={value}' for key, value in options.items())]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    environment = os.environ | dict(PORT=port, PATH=path, OMP_NUM_THREADS='1', SCALE_RUN=str(root))
    began, first, peak = time.perf_counter(), None, 0
    with open(root / 'run.log', 'w+') as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, _largest(f'SCALE_RUN={root}'))
            if first is None and re.search(r'Iter\(train\) +\[ *1/', (root / 'run.log').read_text()):
                first = time.perf_counter() - began
            time.sleep(0.25)
    if process.returncode or first is None:
        raise RuntimeError(f'the training ended with {process.returncode}:\n{(root / "run.log").read_text()[-3000:]}')
    return dict(first=first, seconds=time.perf_counter() - began, peak=peak)


def _largest(mark: str) -> int:
    """Largest peak of resident memory among the processes that bear a mark in their environment."""
    peak = 0
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if mark.encode() in (folder / 'environ').read_bytes():
                found = re.search(r'VmHWM:\s+(\d+) kB', (folder / 'status').read_text())
                peak = max(peak, 1024 * int(found[1]) if found else 0)
        except OSError:
            continue
    return peak


def scale(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """All parts, one after the other, in a temporary folder below ``--parent``."""
    items = 5 * args.images
    case = dict(
        items=items, channels=args.channels, chunk_size=args.chunk_size, blocks=args.repeats, steps=args.worker_steps,
        workers=args.workers, threads=torch.get_num_threads(),
    )  # fmt: skip
    parts = ['data set', 'index file', 'start: data set, crops, index, check', 'search, some blocks', 'workers']
    with tempfile.TemporaryDirectory(dir=args.parent) as folder:
        root = Path(folder)
        began = time.perf_counter()
        write_folder(root, args.images, args.distinct)
        rows = [_row('folder of hard links', args.images, time.perf_counter() - began)]
        write_config(root)
        write_features(root / 'features.f32', items, args.channels)
        results = dict(zip(parts, measure_apart(args, [(part, folder, case) for part in parts])))
        run = train(root, args.ranks, args.steps)
    for part, result in results.items():
        count = args.images if part == 'data set' else items
        rows.append(_row(part, count, result['seconds'], result['rss'], result['cpu']))
    blocks = -(-items // args.chunk_size)
    rows.append(_row('search, extrapolated', items, results['search, some blocks']['block'] * blocks))
    rows.append(_row('training, first step', items, run['first']))
    rows.append(_row(f'training, {args.ranks} ranks, {args.steps} steps', items, run['seconds'], run['peak']))
    start, growth = results['start: data set, crops, index, check'], results['workers']['growth']
    rows.append(_row(f'growth of a worker, {args.worker_steps} steps', items, results['workers']['seconds'], growth))
    search = results['search, some blocks']['rss']
    return rows, [
        Verdict(
            f'data set, index and checks in {START_SECONDS} s and {START_GIB} GiB',
            f'{start["seconds"]:.1f} s ({start["cpu"]:.1f} s of the processor) and {start["rss"] / GIB:.2f} GiB',
            start['seconds'] <= START_SECONDS and start['rss'] <= START_GIB * GIB,
        ),
        Verdict(f'search in {SEARCH_GIB} GiB', f'{search / GIB:.2f} GiB', search <= SEARCH_GIB * GIB),
        Verdict(
            f'a worker grows by at most {WORKER_MIB} MiB', f'{growth / MIB:.1f} MiB', growth <= WORKER_MIB * MIB
        ),
    ]


def _row(
    part: str, items: int, seconds: float, memory: float | None = None, cpu: float | None = None
) -> dict[str, Any]:
    return dict(
        part=part,
        items=items,
        seconds=round(seconds, 2),
        cpu_seconds='' if cpu is None else round(cpu, 2),
        mib='' if memory is None else round(memory / MIB, 1),
    )


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            scale,
            "parts of a training of COCO-Stuff's size",
            repeats=3,
            options=dict(
                images=97702, distinct=16, channels=384, chunk_size=1024, ranks=2, steps=50, workers=4,
                worker_steps=500, parent=None,
            ),
            quick=dict(images=2000, steps=10, worker_steps=100, repeats=1),
            apart=measure,
        )
    },
)  # fmt: skip

if __name__ == '__main__':
    main()
