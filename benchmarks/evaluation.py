"""Images per second of prediction and scoring, with and without a dense CRF, and the memory of a large picture.

    python benchmarks/evaluation.py

The model is that of configs/omh_stego_vit-s8_coco.py with random weights: a probe, a linear probe and three levels, all
of which are predicted and scored. One image at a time, already loaded: at 320 x 320, the protocol of the papers, and as
a whole picture of 480 x 640. Scoring is the metric's ``process``; its ``evaluate``, once per data set, is given apart.
Memory is that of predictions and scores from a code of 512 channels for a picture of 1024 x 2048, backbone left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import Verdict, finish, interleave, parser, positive, start, times
from hosts import BACKBONES, build_model, host_config
from memory import GIB, add_apart_option, measure_apart, measured_apart, peak_rise
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from omh_mmseg.evaluation import UnsupervisedIoUMetric

LIMIT = 0.10
LARGE = (1024, 2048)
LARGE_CHANNELS = 512
MEMORY_LIMIT = 2 * GIB
RESAMPLES = 1000


def evaluated(backbone: str, size: tuple[int, int], channels: int | None = None, crf: bool = False) -> nn.Module:
    """STEGO + OMH with random weights, in evaluation mode."""
    config = host_config('stego', omh=True, backbone=backbone, image_size=size)
    if channels is not None:
        config.model.decode_head.channels = channels
    if crf:
        config.model.test_cfg.update(crf=dict(), levels=[])
    return build_model(config).eval()


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
def measure_memory(height: int, width: int, channels: int) -> dict[str, int]:
    """Bytes that predictions and scores of a large picture need at their peak, in a fresh process."""
    size = (height, width)
    model = evaluated('tiny', (64, 64), channels)
    sample = build_sample(size, model.num_classes)
    code = torch.randn(1, channels, size[0] // 8, size[1] // 8)
    inputs = torch.zeros(1, 3, *size)
    metric = build_metric(model)

    def run() -> None:
        (predicted,) = model.predict_from_code(code, inputs, [sample])
        metric.process(None, [predicted.to_dict()])

    return dict(bytes=peak_rise(run))


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=5)
    options.add_argument('--sizes', type=_size, nargs='+', default=[(320, 320), (480, 640)], metavar='HxW')
    options.add_argument('--backbone', choices=BACKBONES, default='vit-s8', help='tiny: to try the script')
    options.add_argument('--crf-repeats', type=positive, default=2, help='measurements of the CRF')
    options.add_argument('--no-crf', action='store_true', help='leave the CRF out')
    options.add_argument('--large', type=_size, default=LARGE, metavar='HxW', help='picture of the memory measurement')
    add_apart_option(options)
    args = options.parse_args(argv)
    if measured_apart(args, measure_memory):
        return []
    environment = start(args)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    verdicts = []
    for size in args.sizes:
        model = evaluated(args.backbone, size)
        with torch.no_grad():
            taken = interleave(alternatives(model, size), args.repeats, progress=f'{size[0]} x {size[1]}')
            if not args.no_crf:
                refined = evaluated(args.backbone, size, crf=True)
                with_crf = {'prediction of both probes with CRF': predict(refined, size)}
                taken |= interleave(with_crf, args.crf_repeats, warmup=0, progress=f'{size[0]} x {size[1]} with CRF')
        reference = taken['prediction']
        for name, measured in taken.items():
            rows.append(
                dict(
                    height=size[0],
                    width=size[1],
                    what=name,
                    **times(measured),
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
    height, width = args.large
    needed = measure_apart(__file__, [(height, width, LARGE_CHANNELS)])[0]['bytes']
    verdicts.append(
        Verdict(
            f'predictions and scores from a code of {LARGE_CHANNELS} channels at {height} x {width} need under '
            f'{MEMORY_LIMIT / GIB:.0f} GiB',
            f'{needed / GIB:.2f} GiB (the code at full size alone would be '
            f'{4 * LARGE_CHANNELS * height * width / GIB:.2f} GiB)',
            needed < MEMORY_LIMIT,
        )
    )
    title = f'prediction and scoring of one image, levels {model.omh_head.level_sizes}'
    return finish('evaluation', title, rows, environment, args, verdicts)


def _size(text: str) -> tuple[int, int]:
    """``320x320``, for argparse."""
    height, _, width = text.partition('x')
    return positive(height), positive(width or height)


if __name__ == '__main__':
    main()
