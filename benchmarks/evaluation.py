"""Images per second of prediction and scoring, with and without a dense CRF, and the memory of a large picture.

    python benchmarks/evaluation.py

The model is that of configs/omh_stego_vit-s8_coco.py with random weights: a probe, a linear probe and three levels, all
of which are predicted and scored. One image at a time, already loaded: at 320 x 320, the protocol of the papers, and as
a whole picture of 480 x 640. Scoring is the metric's ``process``; its ``evaluate``, once per data set, is given apart.
Memory is that of predictions and scores from a code of 512 channels for a picture of 1024 x 2048, backbone left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import (
    REPOSITORY,
    Verdict,
    interleave,
    parser,
    peak_rise,
    positive,
    show,
    show_verdicts,
    start,
    write_csv,
)
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

import omh_mmseg.models  # noqa: F401  registers the parts and makes the stack importable
from omh_mmseg.evaluation import UnsupervisedIoUMetric
from omh_mmseg.registry import MODELS

LIMIT = 0.10
LARGE = (1024, 2048)
LARGE_CHANNELS = 512
MEMORY_LIMIT = 2 * 2**30
TINY = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
RESAMPLES = 1000


def build_model(backbone: str, size: tuple[int, int], channels: int | None = None, crf: bool = False) -> nn.Module:
    """The config's model with random weights, in evaluation mode."""
    config = Config.fromfile(REPOSITORY / 'configs' / 'omh_stego_vit-s8_coco.py').model
    config.backbone.checkpoint = None
    config.backbone.backbone.img_size = size
    if backbone == 'tiny':
        config.backbone.backbone.arch = TINY
    if channels is not None:
        config.decode_head.channels = channels
    if crf:
        config.test_cfg.update(crf=dict(), levels=[])
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(config).eval()


def build_sample(size: tuple[int, int], classes: int) -> SegDataSample:
    """Labels in blocks, as objects are, with a hundredth of the pixels ignored."""
    height, width = size
    blocks = torch.randint(0, classes, (1, 1, -(-height // 32), -(-width // 32))).float()
    labels = nn.functional.interpolate(blocks, size=size).long()[0]
    labels[torch.rand(labels.shape) < 0.01] = 255
    sample = SegDataSample(metainfo=dict(img_path='picture.jpg', img_shape=size, ori_shape=size))
    sample.gt_sem_seg = PixelData(data=labels)
    return sample


def build_metric(model: nn.Module, bootstrap: int = 0) -> UnsupervisedIoUMetric:
    """The metric as a run has it: with the finer levels counted for their assignment."""
    metric = UnsupervisedIoUMetric(bootstrap=bootstrap)
    metric.dataset_meta = dict(classes=[f'class {number}' for number in range(model.num_classes)])
    metric.use_cluster_sizes(model.assignment.sizes)
    return metric


def alternatives(model: nn.Module, size: tuple[int, int]) -> dict[str, Callable[[], Callable[[], object]]]:
    """Prediction and the two parts of scoring."""
    prediction = predict(model, size)
    predicted = prediction()()[0].to_dict()
    metrics = {'scoring': build_metric(model), f'scoring, {RESAMPLES} resamples': build_metric(model, RESAMPLES)}

    def score(metric: UnsupervisedIoUMetric) -> Callable[[], Callable[[], None]]:
        return lambda: lambda: metric.process(None, [predicted])

    def evaluate(bootstrap: int) -> Callable[[], Callable[[], object]]:
        def fresh() -> Callable[[], object]:
            metric = build_metric(model, bootstrap)
            metric.process(None, [predicted])
            return lambda: metric.evaluate(1)

        return fresh

    result: dict[str, Callable[[], Callable[[], object]]] = {'prediction': prediction}
    result |= {name: score(metric) for name, metric in metrics.items()}
    return result | {'evaluation, once': evaluate(0), f'evaluation, {RESAMPLES} resamples, once': evaluate(RESAMPLES)}


def predict(model: nn.Module, size: tuple[int, int]) -> Callable[[], Callable[[], list[SegDataSample]]]:
    """Prediction of an image with a label."""
    inputs = torch.randn(1, 3, *size)
    sample = build_sample(size, model.num_classes)
    return lambda: lambda: model.predict(inputs, [copy.deepcopy(sample)])


@torch.no_grad()
def measure_memory(size: tuple[int, int], channels: int) -> int:
    """Bytes that predictions and scores of a large picture need at their peak, in a fresh process."""
    model = build_model('tiny', (64, 64), channels)
    sample = build_sample(size, model.num_classes)
    code = torch.randn(1, channels, size[0] // 8, size[1] // 8)
    inputs = torch.zeros(1, 3, *size)
    metric = build_metric(model)

    def run() -> None:
        (predicted,) = model.predict_from_code(code, inputs, [sample])
        metric.process(None, [predicted.to_dict()])

    return peak_rise(run)


def measure_memory_apart(size: tuple[int, int], channels: int) -> int:
    """`measure_memory` in a process of its own, whose freed memory goes back to the system at once."""
    allocator = dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='0')
    command = [sys.executable, __file__, '--memory-of', json.dumps([size, channels])]
    done = subprocess.run(command, env={**os.environ, **allocator}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'the memory of a picture of {size} could not be measured:\n{done.stderr}')
    return int(done.stdout.split()[-1])


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=5)
    options.add_argument('--sizes', type=_size, nargs='+', default=[(320, 320), (480, 640)], metavar='HxW')
    options.add_argument('--backbone', choices=('vit-s8', 'tiny'), default='vit-s8', help='tiny: to try the script')
    options.add_argument('--crf-repeats', type=positive, default=2, help='measurements of the CRF')
    options.add_argument('--no-crf', action='store_true', help='leave the CRF out')
    options.add_argument('--large', type=_size, default=LARGE, metavar='HxW', help='picture of the memory measurement')
    options.add_argument('--memory-of', help=argparse.SUPPRESS)
    args = options.parse_args(argv)
    if args.memory_of:
        size, channels = json.loads(args.memory_of)
        print(measure_memory(tuple(size), channels))
        return []
    environment = start(args)
    # The metric's tables would be between those of the benchmark.
    MMLogger.get_current_instance().setLevel('ERROR')
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    verdicts = []
    for size in args.sizes:
        model = build_model(args.backbone, size)
        with torch.no_grad():
            taken = interleave(alternatives(model, size), args.repeats, progress=f'{size[0]} x {size[1]}')
            if not args.no_crf:
                refined = build_model(args.backbone, size, crf=True)
                with_crf = {'prediction of both probes with CRF': predict(refined, size)}
                taken |= interleave(with_crf, args.crf_repeats, warmup=0, progress=f'{size[0]} x {size[1]} with CRF')
        reference = taken['prediction']
        for name, measured in taken.items():
            rows.append(
                dict(
                    height=size[0],
                    width=size[1],
                    what=name,
                    wall_ms=round(measured.wall_ms, 2),
                    cpu_ms=round(measured.cpu_ms, 2),
                    images_per_s=round(1e3 / measured.wall_ms, 3),
                    percent_of_prediction=round(100 * measured.wall_ms / reference.wall_ms, 2),
                )
            )
        share = taken['scoring'].wall_ms / reference.wall_ms
        verdicts.append(
            Verdict(
                f'scoring adds under {100 * LIMIT:.0f} % to prediction with {args.backbone} at {size[0]} x {size[1]}',
                f'{100 * share:.2f} % of the time',
                share < LIMIT,
            )
        )
    needed = measure_memory_apart(args.large, LARGE_CHANNELS)
    height, width = args.large
    verdicts.append(
        Verdict(
            f'predictions and scores from a code of {LARGE_CHANNELS} channels at {height} x {width} need under '
            f'{MEMORY_LIMIT / 2**30:.0f} GiB',
            f'{needed / 2**30:.2f} GiB (the code at full size alone would be '
            f'{4 * LARGE_CHANNELS * height * width / 2**30:.2f} GiB)',
            needed < MEMORY_LIMIT,
        )
    )
    show(f'prediction and scoring of one image, levels {model.omh_head.level_sizes}', rows)
    path = write_csv('evaluation', rows, environment, args.out_dir)
    show_verdicts(verdicts)
    print(f'written: {path}')
    return verdicts


def _size(text: str) -> tuple[int, int]:
    """``320x320``, for argparse."""
    height, _, width = text.partition('x')
    return positive(height), positive(width or height)


if __name__ == '__main__':
    main()
