"""Pictures of all kinds through the inferencer, both interfaces of mmseg and the files of a prediction."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image, ImageOps
from torch.utils._python_dispatch import TorchDispatchMode

from omh_mmseg.apis import draw_prediction_grid, init_model, list_folder, predict_images
from omh_mmseg.models.prediction.upsampling import MAX_VALUES

PREDICT = Path(__file__).resolve().parents[2] / 'tools' / 'predict.py'


def scene(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture with no symmetry, RGB."""
    rows, columns = np.mgrid[:height, :width]
    ramps = [rows * 255 / height, columns * 255 / width, (rows + 2 * columns) % 97 * 2.5]
    return np.stack(ramps, -1).astype(np.uint8)



def same(one, other) -> bool:
    return all(np.array_equal(one.clusters[head], other.clusters[head]) for head in one.clusters)


def with_tag(path: Path, values: np.ndarray, tag: int) -> Path:
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[0x0112] = tag
    image.save(path, exif=exif)
    return path


# ---- the inferencer and mmseg's interfaces


def test_python_inputs(inferencer, tmp_path):
    run, rgb = inferencer(), scene()
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    expected = run(tmp_path / 'a.png')
    bgr, tensor = rgb[..., ::-1].copy(), torch.tensor(rgb).permute(2, 0, 1)
    pictures = [bgr, bgr.astype(np.uint16) * 257, bgr / 255, tensor, tensor / 255, Image.fromarray(rgb)]
    for picture in pictures:
        assert same(run(picture), expected)
    batch = run(torch.stack([tensor, tensor.flip(-1)]))
    assert len(batch) == 2 and same(batch[0], expected) and not same(batch[1], expected)
    assert [result.path for result in run(pictures)] == [None] * len(pictures)
    with pytest.raises(ValueError, match='value_range'):
        run(bgr.astype(np.int32))
    wide = inferencer(options={'value_range': [0, 4080]})
    assert same(wide(bgr.astype(np.uint16) * 16), expected)


@pytest.fixture
def depths(tmp_path) -> list[Path]:
    """One grey scene in 8 bits, 16 bits and floating point."""
    grey = scene()[..., 0]
    values = [('a.png', grey), ('b.png', grey.astype(np.uint16) * 257), ('c.tif', (grey / 255).astype(np.float32))]
    for name, array in values:
        Image.fromarray(array).save(tmp_path / name)
    return [tmp_path / name for name, _ in values]


def test_depth_through_mmsegs_interfaces(trained_demo, inferencer, depths):
    from mmseg.apis import MMSegInferencer, inference_model
    from mmseg.apis import init_model as init_model_of_mmseg

    expected = inferencer()(depths[0])
    classes = np.where(expected.classes['probe'] < 0, 255, expected.classes['probe'])
    model = init_model_of_mmseg(Config.fromfile(str(trained_demo.config)), str(trained_demo.matched), device='cpu')
    theirs = MMSegInferencer(str(trained_demo.config), str(trained_demo.matched), device='cpu', show_progress=False)
    grey = np.array(Image.open(depths[0]))
    pictures = [*map(str, depths), grey, grey.astype(np.uint16) * 257, grey / 255, Image.fromarray(grey)]
    for picture in [*pictures, *reversed(pictures)]:
        result = inference_model(model, picture)
        assert np.array_equal(result.pred_sem_seg.data[0].numpy(), classes)
        assert np.array_equal(result.pred_clusters.data[0].numpy(), expected.clusters['probe'])
        assert np.array_equal(theirs(picture)['predictions'], classes)
    with pytest.raises(ValueError, match='value_range'):
        inference_model(model, grey.astype(np.int32))


def test_mmsegs_inferencer_draws_what_it_segments(trained_demo, depths, tmp_path):
    from mmseg.apis import MMSegInferencer

    theirs = MMSegInferencer(str(trained_demo.config), str(trained_demo.matched), device='cpu', show_progress=False)
    turned = with_tag(tmp_path / 'd.png', scene(), 6)
    rgb, options = scene(), dict(return_vis=True, opacity=0.0, with_labels=False)
    grey = np.repeat(rgb[..., :1], 3, 2)
    deep = rgb[..., ::-1].astype(np.uint16) * 257
    pictures = [*((str(path), grey) for path in depths), (deep, rgb), (Image.fromarray(rgb), rgb)]
    for picture, expected in [*pictures, (str(turned), np.rot90(rgb, -1))]:
        np.testing.assert_array_equal(theirs(picture, **options)['visualization'], expected)
    theirs(str(depths[1]), out_dir=str(tmp_path / 'out'))
    assert (tmp_path / 'out' / 'vis' / depths[1].name).is_file()


def test_several_sizes_in_one_batch(trained_demo, folder):
    from mmseg.apis import inference_model

    model = init_model(trained_demo.config, trained_demo.matched, 'cpu')
    paths = [str(folder / name) for name in ('a.png', 'more/c.png', 'b.jpg')]
    together = inference_model(model, paths)
    for path, result in zip(paths, together):
        assert result.img_path == path
        alone = inference_model(model, path)
        assert (result.pred_sem_seg.data == alone.pred_sem_seg.data).float().mean() > 0.999


def test_scores_see_clusters(trained_demo, folder):
    model = init_model(trained_demo.config, trained_demo.matched, 'cpu')
    from mmseg.apis.utils import _preprare_data

    data, _ = _preprare_data(str(folder / 'a.png'), model)
    clusters = model.val_step(data)[0].pred_sem_seg.data
    data, _ = _preprare_data(str(folder / 'a.png'), model)
    data['data_samples'][0].gt_sem_seg = model.val_step(data)[0].pred_sem_seg
    assert torch.equal(model.test_step(data)[0].pred_sem_seg.data, clusters)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(inferencer, folder, dtype):
    run = inferencer()
    expected = run(folder / 'a.png')
    run.model.to(dtype)
    result = run(folder / 'a.png')
    assert all((result.clusters[head] == expected.clusters[head]).mean() > 0.9 for head in ('probe', 'linear'))


# ---- turned photos


@pytest.mark.slow
def test_turned_photos_are_segmented_and_drawn_as_they_look(inferencer, tmp_path):
    (tmp_path / 'photos').mkdir()
    path = with_tag(tmp_path / 'photos' / 'a.jpg', scene(), 6)
    with Image.open(path) as image:
        upright = np.array(ImageOps.exif_transpose(image))
    Image.fromarray(upright).save(tmp_path / 'upright.png')
    run = inferencer()
    assert same(run(path), run(tmp_path / 'upright.png')) and run(path).clusters['probe'].shape == (64, 48)
    predict_images(run, [str(path)], tmp_path / 'out', opacity=0.01)
    drawn = np.array(Image.open(tmp_path / 'out' / 'overlays' / 'a.jpg')).astype(int)
    assert drawn.shape == upright.shape and np.abs(drawn - upright).mean() < 6
    draw_prediction_grid(tmp_path / 'grid.png', run, [str(path)], photos=True)


# ---- sizes


@pytest.mark.parametrize('size', [(1, 300), (300, 1), (1, 1), (3, 500), (40, 2000)])
def test_strips_take_no_time(inferencer, tmp_path, size):
    Image.fromarray(scene(*size)).save(tmp_path / 'a.png')
    run, start = inferencer(), time.monotonic()
    result = run(tmp_path / 'a.png')
    assert result.clusters['probe'].shape == size and time.monotonic() - start < 30
    assert max(result.metainfo['img_shape']) <= 25 * min(result.metainfo['img_shape']) + 8


class LargestTensor(TorchDispatchMode):
    """Remembers the number of values of the largest tensor that an operation makes."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor):
                self.values = max(self.values, each.numel())
        return result


def test_windows_bound_the_memory(inferencer):
    """No tensor is larger than the image itself, whatever the number of clusters."""
    bound = 3 * 1200 * 1200
    run = inferencer(protocol='mmseg-slide')
    with LargestTensor() as largest:
        result = run(scene(1200, 1200))
    assert result.clusters['level3'].shape == (1200, 1200)
    assert MAX_VALUES <= largest.values <= bound < 6 * 1200 * 1200


@pytest.mark.slow
def test_tiles_of_aerial_photos(trained_demo, tmp_path):
    """6000 x 6000 by windows: 108 MB as bytes, 432 MB in float32, 288 MB for each of five masks."""
    import subprocess

    Image.fromarray(scene(6000, 6000)).save(tmp_path / 'tile.png')
    code = (
        'import resource\nfrom omh_mmseg.apis import SegmentationInferencer\n'
        f'run = SegmentationInferencer({str(trained_demo.config)!r}, {str(trained_demo.checkpoint)!r}, "cpu", '
        'protocol="mmseg-slide")\n'
        'before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        f'run({str(tmp_path / "tile.png")!r})\n'
        'print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 5


# ---- a folder of everything


def write_mixed(root: Path, count: int) -> dict[str, set[str]]:
    """So many files of all kinds, by what must become of them."""
    kinds: dict[str, set[str]] = dict(segmented=set(), failed=set(), skipped=set())
    generator = np.random.default_rng(0)
    root.mkdir()

    def name(number: int, suffix: str, kind: str) -> Path:
        path = root / f'{number % 7}' / f'{number:03d}{suffix}'
        path.parent.mkdir(exist_ok=True)
        kinds[kind].add(str(path))
        return path

    for number in range(count):
        height, width = (int(side) for side in generator.integers(1, 40, 2))
        rgb, kind = scene(height, width), number % 20
        image, grey = Image.fromarray(rgb), rgb[..., 1]
        if kind < 5:
            image.save(name(number, ('.png', '.jpg', '.gif', '.ppm', '.webp')[kind], 'segmented'))
        elif kind < 9:
            image.convert(('CMYK', 'L', 'LA', 'P')[kind - 5]).save(name(number, '.tif', 'segmented'))
        elif kind == 9:
            Image.fromarray(grey.astype(np.uint16) * 257).save(name(number, '.png', 'segmented'))
        elif kind == 10:
            Image.fromarray((grey / 255).astype(np.float32)).save(name(number, '.TIFF', 'segmented'))
        elif kind == 11:
            image.save(name(number, '.jfif', 'segmented'), format='JPEG')
        elif kind < 14:
            with_tag(name(number, '.jpg', 'segmented'), rgb, 3 + 3 * (kind - 12))
        elif kind == 14:
            Image.fromarray(grey.astype(np.int32)).save(name(number, '.tif', 'failed'))
        elif kind == 15:
            name(number, '.jpg', 'failed').write_bytes(b'<html></html>')
        elif kind == 16:
            image.save(root / 'whole.png')
            name(number, '.png', 'failed').write_bytes((root / 'whole.png').read_bytes()[:45])
            (root / 'whole.png').unlink()
        elif kind == 17:
            Image.fromarray((grey + 1.0).astype(np.float32) * 300).save(name(number, '.tif', 'failed'))
        elif kind == 18:
            name(number, '.txt', 'skipped').write_text('no picture')
        else:
            name(number, '.png', 'skipped').symlink_to(root / 'nowhere')
    return kinds


@pytest.mark.parametrize('count', [40, pytest.param(200, marks=pytest.mark.slow)])
def test_every_file_of_a_mixed_folder_is_accounted_for(trained_demo, tmp_path, capsys, monkeypatch, count):
    kinds = write_mixed(tmp_path / 'photos', count)
    arguments = [str(trained_demo.config), str(trained_demo.checkpoint), str(tmp_path / 'photos')]
    monkeypatch.setattr(sys, 'argv', ['predict.py', *arguments, '--out-dir', str(tmp_path / 'out'), '--device', 'cpu'])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(PREDICT), run_name='__main__')
    assert stopped.value.code == 1
    summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    told = dict(
        segmented={entry['image'] for entry in summary['images']},
        failed={entry['image'] for entry in summary['failed']},
        skipped={entry['path'] for entry in summary['skipped']},
    )
    assert told == kinds
    assert all(entry['error'] for entry in summary['failed']) and all(entry['reason'] for entry in summary['skipped'])
    assert summary['counts'] == {kind: len(paths) for kind, paths in kinds.items()} | dict(found=count)
    output = capsys.readouterr().out
    assert f'{count} found: {len(kinds["segmented"])} segmented, {len(kinds["failed"])} failed, ' in output
    assert f'{count // 20} left out, no image ending (.txt)' in output
    written = {os.path.splitext(os.path.basename(path))[0] for path in kinds['segmented']}
    assert {path.stem for path in (tmp_path / 'out' / 'overlays').rglob('*.jpg')} == written


def test_loops_and_formats_of_a_folder(inferencer, tmp_path):
    root = tmp_path / 'photos'
    root.mkdir()
    for suffix in ('gif', 'jp2', 'ppm', 'png'):
        Image.fromarray(scene()).save(root / f'{suffix}.{suffix}')
    (root / 'loop').symlink_to(root, target_is_directory=True)
    listing = list_folder(root)
    assert len(listing.images) == 4 and len(listing.skipped) == 1
    assert len(inferencer()(root)) == 4
