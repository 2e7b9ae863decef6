"""Images per second of the data loader alone: decoding, cropping, resizing, and whether it keeps up with the backbone.

    python benchmarks/loader.py                       # pictures like COCO's, made here
    python benchmarks/loader.py --images /my/photos --workers 0 4 8

First every decoder that is installed, one image after the other in one process, with how far its pixels are from
Pillow's, which the hosts' own code uses (METHODS.md 5.6). Then whole epochs of mmengine's loader with the pipelines of
configs/_base_/datasets/coco-stuff27.py: crops cut on the fly and stored ones at 224, whole images at 320, and features
from a cache, which take the place of the backbone, too. The rates are of items; a pair of STEGO is two. Files are in
the system's cache. The frozen backbone stands beside them: forward only, on the same number of threads.
"""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from cached import CACHED_DTYPES, build_cache, build_loader, write_items
from common import Verdict, finish, interleave, parser, positive, start
from hosts import BACKBONES, build_model, host_config
from mmengine.dataset import DefaultSampler
from mmengine.registry import DefaultScope
from photos import write_photos
from PIL import Image
from torch.utils.data import DataLoader

from omh_mmseg.datasets.transforms.five_crop_patch import five_crop_boxes
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.dataset_configs import innermost_datasets

PIPELINES = ('crop on the fly, 224', 'stored crop, 224', 'whole image, 320')
REFERENCE_DECODER = 'pillow'
FLAG = 'color_ignore_orientation'
SUFFIXES = ('.jpg', '.jpeg')


def decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Functions from the bytes of a JPEG file to BGR uint8 (H, W, 3), of the libraries that are installed."""
    names = ['pillow', 'cv2'] + (['turbojpeg'] if importlib.util.find_spec('turbojpeg') else [])
    found = {name: lambda data, name=name: mmcv.imfrombytes(data, FLAG, backend=name) for name in names}
    if importlib.util.find_spec('torchvision'):
        from torchvision.io import ImageReadMode, decode_jpeg

        def torchvision(data: bytes) -> np.ndarray:
            decoded = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
            return np.ascontiguousarray(decoded.flip(0).permute(1, 2, 0).numpy())

        buffer = io.BytesIO()
        Image.new('RGB', (16, 16)).save(buffer, 'JPEG')
        try:
            torchvision(buffer.getvalue())
        except RuntimeError as error:  # a build without its image library
            print(f'without torchvision: {error}')
        else:
            found['torchvision'] = torchvision
    return found


def decoding(paths: Sequence[Path], repeats: int) -> list[dict[str, Any]]:
    """Rows of the decoders, one image after the other."""
    contents = [path.read_bytes() for path in paths]
    forms = decoders()

    def decode_all(decode: Callable[[bytes], np.ndarray]) -> Callable[[], Callable[[], None]]:
        def run() -> None:
            for content in contents:
                np.ascontiguousarray(decode(content))

        return lambda: run

    taken = interleave({name: decode_all(form) for name, form in forms.items()}, repeats, progress='decoders')
    rows = []
    for name, sample in taken.items():
        changed, largest = deviation(forms[name], forms[REFERENCE_DECODER], contents[:8])
        rows.append(
            row('decode', name, 0, sample.wall_ms / len(contents))
            | dict(changed_percent=round(changed, 3), largest_change=largest)
        )
    return rows


def deviation(decode: Callable, reference: Callable, contents: Sequence[bytes]) -> tuple[float, int]:
    """Share of the values that differ from the reference's, in percent, and by how much at most, of 255."""
    changes = [np.abs(decode(content).astype(int) - reference(content)) for content in contents]
    return 100 * float(np.mean([(change > 0).mean() for change in changes])), int(max(c.max() for c in changes))


def row(what: str, source: str, workers: int, milliseconds: float) -> dict[str, Any]:
    """A row of the table, with empty columns for deviations."""
    rates = dict(ms_per_item=round(milliseconds, 3), items_per_s=round(1e3 / milliseconds, 2))
    return dict(what=what, source=source, workers=workers, **rates, changed_percent='', largest_change='')


def build_pipeline(what: str, decoder: str, folder: Path, crops: Path) -> Any:
    """The data set of one of `PIPELINES`."""
    config = host_config('stego')
    whole = what.startswith('whole')
    (training,) = innermost_datasets(config.train_dataloader.dataset).values()
    pipeline = [{**step} for step in (config.test_pipeline if whole else training.pipeline)]
    pipeline[0]['imdecode_backend'] = decoder
    dataset = dict(type='FolderSegDataset', data_root=str(folder), num_classes=2, labels='none', pipeline=pipeline)
    if not whole:
        stored = dict(stored=str(crops)) if what.startswith('stored') else {}
        dataset = dict(type='FiveCrop', ratio=0.5, dataset=dataset, **stored)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(dataset)


def epoch(loader: DataLoader) -> Callable[[], Callable[[], None]]:
    """For `interleave`: a whole epoch, which begins with workers that have nothing ready."""

    def run() -> None:
        for _ in loader:
            pass

    return lambda: run


def backbone_rows(args: Any) -> list[dict[str, Any]]:
    """Rows of the frozen backbone's forward."""
    rows = []
    images = torch.randn(4, 3, 224, 224, device=args.device)
    for precision in ('float32', 'bfloat16'):
        backbone = build_model(host_config(backbone=args.backbone, precision=precision), args.device).backbone

        def forward(backbone: torch.nn.Module = backbone) -> object:
            return backbone(images)

        label = f'backbone, {precision}'
        alternative: dict[str, Callable[[], Callable[[], object]]] = {label: lambda forward=forward: forward}
        taken = interleave(alternative, args.repeats, progress=label, device=args.device)
        rows.append(row('backbone, 224', precision, 0, taken[label].wall_ms / len(images)))
    return rows


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=3, device=True)
    options.add_argument('--images', type=Path, help='folder of JPEG files; default: pictures made here')
    options.add_argument('--count', type=positive, default=48, help='images at the most')
    options.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2])
    options.add_argument('--batch-size', type=positive, default=16)
    options.add_argument('--backbone', choices=BACKBONES, default='vit-s8', help='tiny: to try the script')
    args = options.parse_args(argv)
    environment = start(args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / 'images'
        paths = photographs(args.images, folder, args.count)
        crops = store_crops(paths, Path(temporary) / 'pictures_five_crop_0.5')
        rows = decoding(paths, args.repeats)
        datasets = {
            (what, decoder): build_pipeline(what, decoder, folder, crops)
            for what in PIPELINES
            for decoder in ('pillow', 'cv2')
        }
        datasets |= cached_datasets(args.backbone, args.device, Path(temporary), args.count)
        for workers in args.workers:
            loaders = {
                key: build_loader(dataset, args.batch_size, DefaultSampler(dataset, shuffle=True), workers)
                for key, dataset in datasets.items()
            }
            names = {f'{what}, {source}, {workers} workers': (what, source) for what, source in loaders}
            alternatives = {name: epoch(loaders[key]) for name, key in names.items()}
            taken = interleave(alternatives, args.repeats, progress=f'{workers} workers')
            for name, key in names.items():
                items = len(loaders[key].dataset)
                rows.append(row(*key, workers, taken[name].wall_ms / items))
            del loaders, alternatives
        torch.set_num_threads(environment['threads'])
        rows += backbone_rows(args)
    return finish('loader', 'The data loader alone', rows, environment, args, judge(rows))


def cached_datasets(backbone: str, device: str, folder: Path, count: int) -> dict[tuple[str, str], Any]:
    """Features of pictures of 224 x 224 and their labels, by type."""
    write_items(folder / 'items', count, 224)
    config = host_config('stego', backbone=backbone)
    model = build_model(config, device)
    return {
        ('features from the cache, 224', dtype): build_cache(
            model, config, folder / 'items', folder / 'caches', dtype
        ).complete(progress=False)
        for dtype in CACHED_DTYPES
    }


def photographs(given: Path | None, folder: Path, count: int) -> list[Path]:
    """JPEG files in a folder of their own: made, or links to some of those given."""
    if given is None:
        return write_photos(folder, count)
    found = sorted(path for path in given.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f'loader.py: there are no JPEG files below {given}')
    folder.mkdir(parents=True)
    links = []
    for number, path in enumerate(found[:: max(1, len(found) // count)][:count]):
        links.append(folder / f'{number:06d}.jpg')
        links[-1].symlink_to(path.resolve())
    return links


def store_crops(paths: Sequence[Path], folder: Path) -> Path:
    """Crops cut beforehand, in the layout that `FiveCrop` reads."""
    target = folder / 'img' / 'train'
    target.mkdir(parents=True)
    for number, path in enumerate(paths):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            for crop, box in enumerate(five_crop_boxes(image.height, image.width, 0.5)):
                image.convert('RGB').crop(box).save(target / f'{5 * number + crop}.jpg', quality=95)
    return folder


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Whether one worker keeps up with the backbone on this machine."""
    backbone = max(item['items_per_s'] for item in rows if item['what'].startswith('backbone'))
    workers = max(item['workers'] for item in rows)
    pillow = [item for item in rows if item['what'] in PIPELINES and item['source'] == REFERENCE_DECODER]
    slowest = min((item for item in pillow if item['workers'] == workers), key=lambda item: item['items_per_s'])
    return [
        Verdict(
            f'the loader with {workers} workers and Pillow keeps up with the frozen backbone',
            f'{slowest["items_per_s"]:.1f} items/s at the least ({slowest["what"]}), the backbone takes {backbone:.1f}',
            slowest['items_per_s'] >= backbone,
        )
    ]


if __name__ == '__main__':
    main()
