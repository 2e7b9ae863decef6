"""Time of the dense CRF by both back ends, and how often they choose the same cluster.

    python benchmarks/crf.py                                  # drawn scenes
    python benchmarks/crf.py --images /my/photos --sizes 320x320 1024x2048

Each picture is refined for one segmentation (the probe), and for five (with a linear probe and three levels of as many
clusters), which share the lattice of the torch back end. pydensecrf runs in as many processes as there are threads, one
picture each; the figures are those of a picture out of as many as there are threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Verdict, finish, interleave, parser, positive, start
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor

import omh_mmseg.datasets  # noqa: F401  registers the drawn scenes
from omh_mmseg.models.prediction.crf import DenseCRF
from omh_mmseg.registry import DATASETS

SEGMENTATIONS = (1, 5)
REQUIRED_AGREEMENT = 0.99


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
            raise SystemExit(f'crf.py: there are no images below {folder}')
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
    """``320x640`` as (320, 640), for argparse."""
    height, _, width = text.partition('x')
    try:
        return positive(height), positive(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f'must be HEIGHTxWIDTH; got {text}') from None


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=3)
    options.add_argument('--sizes', type=size_of, nargs='+', default=[(320, 320), (480, 640)], metavar='HxW')
    options.add_argument('--clusters', type=positive, default=27)
    options.add_argument('--images', type=Path, help='folder of photographs; default: drawn scenes')
    args = options.parse_args(argv)
    environment = start(args)
    threads = environment['threads']
    backends = ['torch'] + (['pydensecrf'] if importlib.util.find_spec('pydensecrf') else [])
    models = {name: DenseCRF(backend=name, workers=threads) for name in backends}
    rows: list[dict[str, Any]] = []
    agreements: list[float] = []
    for size in args.sizes:
        images = load_images(args.images, threads, size)
        maps = [log_probabilities(image, args.clusters) for image in images]
        if len(models) == 2:
            results = [list(crf.refine((i, dict(p=m)) for i, m in zip(images, maps))) for crf in models.values()]
            pairs = [(one['p'].argmax(0), other['p'].argmax(0)) for one, other in zip(*results)]
            agreements += [float((one == other).float().mean()) for one, other in pairs]
        changed = [float((models['torch'](i, m).argmax(0) != m.argmax(0)).float().mean()) for i, m in zip(images, maps)]
        for count in SEGMENTATIONS:

            def prepare(crf: DenseCRF, count: int = count, images: Any = images, maps: Any = maps) -> Callable:
                jobs = [(image, {str(n): one for n in range(count)}) for image, one in zip(images, maps)]
                return lambda: lambda: list(crf.refine(jobs))

            label = f'{size[0]}x{size[1]}, {count} segmentations'
            samples = interleave({name: prepare(crf) for name, crf in models.items()}, args.repeats, progress=label)
            for name, sample in samples.items():
                milliseconds = sample.wall_ms / len(images)
                rows.append(
                    dict(
                        backend=name,
                        height=size[0],
                        width=size[1],
                        clusters=args.clusters,
                        segmentations=count,
                        wall_ms=round(milliseconds, 1),
                        images_per_second=round(1e3 / milliseconds, 3),
                        changed_percent=round(100 * sum(changed) / len(changed), 2),
                    )
                )
    verdicts = []
    if agreements:
        verdicts.append(
            Verdict(
                'both back ends of the CRF choose the same cluster for at least 99 % of the pixels',
                f'{100 * min(agreements):.3f} % at least, over {len(agreements)} pictures',
                min(agreements) >= REQUIRED_AGREEMENT,
            )
        )
    return finish('crf', 'Dense CRF, per picture', rows, environment, args, verdicts)


if __name__ == '__main__':
    main()
