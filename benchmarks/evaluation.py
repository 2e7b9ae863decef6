"""Images per second of prediction, scoring and the dense CRF, and the memory of a large picture.

    python benchmarks/evaluation.py scoring
    python benchmarks/evaluation.py crf                                  # drawn scenes
    python benchmarks/evaluation.py crf --images /my/photos --sizes 320x320 1024x2048

Weights are random; what they predict does not matter for the time.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import GIB, Benchmark, Prepared, Question, Rows, Verdict, interleave, measure_apart, peak_rise, whole
from hosts import BACKBONES, build_model, host_config
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn

import omh_mmseg.datasets  # noqa: F401  registers the drawn scenes
from omh_mmseg.evaluation import UnsupervisedIoUMetric
from omh_mmseg.models.prediction.crf import DenseCRF
from omh_mmseg.models.prediction.crf.pydensecrf_worker import mean_field
from omh_mmseg.registry import DATASETS

LIMIT = 0.10
LARGE_CHANNELS = 512
MEMORY_LIMIT = 2 * GIB
RESAMPLES = 1000
SEGMENTATIONS = ((1,), (1, 1, 1, 2, 4))
"""Numbers of clusters of the segmentations that are refined together, in those of the probe."""
REQUIRED_AGREEMENT = 0.999
MOST_TIMES = 1.2


def scoring(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Prediction and scoring, one image at a time, already loaded.

    The model is that of configs/omh_stego_vit-s8_coco.py with random weights: a probe, a linear probe and three levels,
    all of which are predicted and scored: at 320 x 320, the protocol of the papers, and as a whole picture of 480 x
    640. Scoring is the metric's ``process``; its ``evaluate``, once per data set, is given apart. Memory is that of
    predictions and scores from a code of 512 channels for a picture of 1024 x 2048, backbone left out.
    """
    torch.manual_seed(0)
    rows: Rows = []
    verdicts = []
    for size in map(size_of, args.sizes):
        model = evaluated(args.backbone, size)
        with torch.no_grad():
            taken = interleave(alternatives(model, size), args.repeats, progress=f'{size[0]} x {size[1]}')
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
                    **measured.times(),
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
    height, width = size_of(args.large)
    needed = measure_apart(args, [(height, width, LARGE_CHANNELS)])[0]['bytes']
    verdicts.append(
        Verdict(
            f'predictions and scores from a code of {LARGE_CHANNELS} channels at {height} x {width} need under '
            f'{MEMORY_LIMIT / GIB:.0f} GiB',
            f'{needed / GIB:.2f} GiB (the code at full size alone would be '
            f'{4 * LARGE_CHANNELS * height * width / GIB:.2f} GiB)',
            needed < MEMORY_LIMIT,
        )
    )
    return rows, verdicts


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
    labels = F.interpolate(blocks, size=size).long()[0]
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


def alternatives(model: nn.Module, size: tuple[int, int]) -> dict[str, Prepared]:
    """Prediction and the two parts of scoring."""
    prediction = predict(model, size)
    predicted = prediction()()[0].to_dict()
    metrics = {'scoring': build_metric(model), f'scoring, {RESAMPLES} resamples': build_metric(model, RESAMPLES)}

    def score(metric: UnsupervisedIoUMetric) -> Callable[[], Callable[[], None]]:
        return lambda: lambda: metric.process(None, [predicted])

    def evaluate(bootstrap: int) -> Prepared:
        def fresh() -> Callable[[], object]:
            metric = build_metric(model, bootstrap)
            metric.process(None, [predicted])
            return lambda: metric.evaluate(1)

        return fresh

    result: dict[str, Prepared] = {'prediction': prediction}
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


def crf(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """The dense CRF in torch beside pydensecrf, and how often they choose the same cluster.

    Each picture is refined for one segmentation (the probe), and for five at once (with a linear probe and three levels
    of 1, 2 and 4 times as many clusters). Both compute in this process, so that its processor time is theirs; what the
    library takes for pydensecrf's processes comes on top of the latter. Figures are those of one picture.
    """
    crf = DenseCRF(backend='torch')
    rows: Rows = []
    agreements: list[float] = []
    ratios: list[float] = []
    for size in map(size_of, args.sizes):
        images = load_images(args.images, args.pictures, size)
        for multiples in SEGMENTATIONS:
            jobs = [
                (image, {str(n): log_probabilities(image, args.clusters * m) for n, m in enumerate(multiples)})
                for image in images
            ]
            alternatives = {'torch': by_torch(crf, jobs)}
            if importlib.util.find_spec('pydensecrf'):
                alternatives['pydensecrf'] = by_pydensecrf(crf, jobs)
            label = f'{size[0]}x{size[1]}, {len(multiples)} segmentations'
            samples = interleave(alternatives, args.repeats, progress=label)
            chosen = {name: prepare()() for name, prepare in alternatives.items()}
            before = [maps.argmax(0) for _, by_name in jobs for maps in by_name.values()]
            changed = [1 - share_of_equal(*pair) for pair in zip(chosen['torch'], before)]
            if len(chosen) == 2:
                agreements += [share_of_equal(*pair) for pair in zip(*chosen.values())]
                ratios.append(samples['torch'].cpu_ms / samples['pydensecrf'].cpu_ms)
            for name, sample in samples.items():
                each = sample.per_step(len(images))
                rows.append(
                    dict(
                        backend=name,
                        height=size[0],
                        width=size[1],
                        clusters=args.clusters,
                        segmentations=len(multiples),
                        **each.times(),
                        cpu_ratio=round(sample.cpu_ms / samples['torch'].cpu_ms, 3),
                        changed_percent=round(100 * sum(changed) / len(changed), 2),
                    )
                )
    if not agreements:
        return rows, []
    return rows, [
        Verdict(
            'both CRFs choose the same cluster for at least 99.9 % of the pixels',
            f'{100 * min(agreements):.3f} % at least, over {len(agreements)} segmentations',
            min(agreements) >= REQUIRED_AGREEMENT,
        ),
        Verdict(
            f'the CRF in torch takes at most {MOST_TIMES} times the processor time of pydensecrf',
            f'{min(ratios):.2f} to {max(ratios):.2f} times',
            max(ratios) <= MOST_TIMES,
        ),
    ]


def by_torch(crf: DenseCRF, jobs: list[tuple[Tensor, dict[str, Tensor]]]) -> Prepared:
    """Clusters of every segmentation, one after the other."""
    return lambda: lambda: [maps.argmax(0) for result in crf.refine(jobs) for maps in result.values()]


def by_pydensecrf(crf: DenseCRF, jobs: list[tuple[Tensor, dict[str, Tensor]]]) -> Prepared:
    """The same by the library, called in this process."""

    def run() -> list[Tensor]:
        chosen = []
        for image, by_name in jobs:
            pixels = image.permute(1, 2, 0).numpy()
            for maps in by_name.values():
                unary = -torch.softmax(maps, 0).clamp_min(crf.settings['min_probability']).log()
                chosen.append(torch.from_numpy(mean_field(pixels, unary.numpy(), crf.settings).argmax(0)))
        return chosen

    return lambda: run


def share_of_equal(one: Tensor, other: Tensor) -> float:
    """Share of the pixels with the same cluster."""
    return float((one == other).float().mean())


def load_images(folder: Path | None, count: int, size: tuple[int, int]) -> list[Tensor]:
    """BGR uint8 (3, H, W), resized by nearest as in the protocols."""
    with tempfile.TemporaryDirectory() as drawn:
        if folder is None:
            with DefaultScope.overwrite_default_scope('mmseg'):
                counts = dict(train=1, val=count)
                DATASETS.build(dict(type='DemoScenes', data_root=drawn, split='val', counts=counts, pipeline=[]))
            folder = Path(drawn)
        suffixes = ('.jpg', '.jpeg', '.png')
        paths = sorted(path for path in folder.rglob('*') if path.suffix.lower() in suffixes)
        paths = [path for path in paths if 'labels' not in path.parts]
        if not paths:
            raise SystemExit(f'evaluation.py: there are no images below {folder}')
        images = []
        for path in paths[:: max(1, len(paths) // count)][:count]:
            with Image.open(path) as opened:
                resized = opened.convert('RGB').resize(size[::-1], Image.Resampling.NEAREST)
            images.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1).flip(0).contiguous())
    return images


def log_probabilities(image: Tensor, clusters: int) -> Tensor:
    """Soft ones as a cluster probe's: cosines of a code that sees blurred colours, at the temperature of 1/2."""
    generator = torch.Generator().manual_seed(0)
    blurred = F.avg_pool2d(image[None].float() / 255 - 0.5, 8)
    code = F.conv2d(blurred, torch.randn(70, 3, 3, 3, generator=generator), padding=1).relu()
    code = F.normalize(F.interpolate(code, size=image.shape[1:], mode='bilinear', align_corners=False), dim=1)
    centres = F.normalize(torch.rand(clusters, 70, generator=generator), dim=1)
    return torch.log_softmax(2 * F.conv2d(code, centres[:, :, None, None])[0], 0)


def size_of(text: str) -> tuple[int, int]:
    """``320x640`` as (320, 640)."""
    height, _, width = text.partition('x')
    try:
        return whole(height), whole(width)
    except (ValueError, argparse.ArgumentTypeError):
        raise SystemExit(f'evaluation.py: a size is HEIGHTxWIDTH; got {text}') from None


main = Benchmark(
    __file__,
    __doc__,
    dict(
        scoring=Question(
            scoring,
            'Prediction and scoring of one image',
            repeats=5,
            options=dict(sizes=['320x320', '480x640'], backbone='vit-s8', crf_repeats=2, large='1024x2048'),
            quick=dict(repeats=2, sizes=['320x320']),
            choices=dict(backbone=BACKBONES),
            apart=measure_memory,
        ),
        crf=Question(
            crf,
            'Dense CRF, per picture',
            repeats=3,
            options=dict(sizes=['256x256', '320x320', '480x640'], clusters=27, pictures=2, images=None),
            quick=dict(repeats=1, sizes=['256x256']),
        ),
    ),
)

if __name__ == '__main__':
    main()
