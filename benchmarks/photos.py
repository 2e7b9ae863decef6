"""Processor time from a folder of photos without labels to their masks: train.py and predict.py, start-up included.

    python benchmarks/photos.py

The config is configs/omh_stego_mobilenet-v2_folder.py with random weights; beside the data root, the number of classes
and the length, no option is given. The same is done without the feature cache, in turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from cached import write_photos
from common import REPOSITORY, Benchmark, Question, Rows, Verdict
from mmengine.config import Config
from mmengine.registry import DefaultScope

from omh_mmseg.registry import MODELS

CONFIG = REPOSITORY / 'configs' / 'omh_stego_mobilenet-v2_folder.py'
LIMIT_SECONDS = 25
DEFAULT, WITHOUT = 'no option', 'no feature cache'
OPTIONS: dict[str, list[str]] = {DEFAULT: [], WITHOUT: ['default_hooks.feature_cache.folder=None']}


def photos(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Each command's processor time, of all its processes, by default and without a cache."""
    taken: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / 'photos', args.images)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmseg'):
            torch.save(MODELS.build(Config.fromfile(CONFIG).model.backbone.backbone).state_dict(), folder / 'net.pth')
        for _ in range(args.repeats):
            for name, more in OPTIONS.items():
                given = [f'data_root={folder / "photos"}', f'num_classes={args.classes}', *more]
                given += [f'train_cfg.max_iters={args.steps}', f'train_cfg.val_interval={args.steps}']
                given += [f'model.backbone.checkpoint={folder / "net.pth"}']
                run = folder / 'runs' / 'run'
                # Relative paths, such as that of the neighbour index, lie here.
                here = folder / 'here'
                here.mkdir()
                train = ['train.py', str(CONFIG), '--work-dir', str(run), '--cfg-options', *given]
                predict = ['predict.py', str(run), str(folder / 'photos'), '--out-dir', str(folder / 'masks')]
                for words in (train, predict):
                    taken.setdefault((name, words[0]), []).append(processor_seconds(words, here, args.threads))
                for made in (folder / 'runs', here, folder / 'masks'):
                    shutil.rmtree(made)
    rows = [
        dict(images=args.images, steps=args.steps, what=name, command=command, cpu_s=round(min(seconds), 2))
        for (name, command), seconds in taken.items()
    ]
    whole = {name: sum(row['cpu_s'] for row in rows if row['what'] == name) for name in OPTIONS}
    return rows, [
        Verdict(
            f'{args.images} unlabelled photos to masks, {args.steps} steps: under {LIMIT_SECONDS} s of processor time',
            f'{whole[DEFAULT]:.1f} s; {whole[WITHOUT]:.1f} s without the feature cache',
            whole[DEFAULT] < LIMIT_SECONDS,
        )
    ]


def processor_seconds(words: list[str], folder: Path, threads: int | None) -> float:
    """Of a command of the repository and its children."""
    threads = threads or os.cpu_count() or 1
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHONPATH': str(REPOSITORY)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(REPOSITORY / 'tools' / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{words} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}')
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            photos,
            'From photos to masks',
            repeats=2,
            options=dict(images=40, steps=60, classes=8),
            quick=dict(repeats=1, images=10, steps=10),
        )
    },
)

if __name__ == '__main__':
    main()
