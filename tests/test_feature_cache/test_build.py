"""Building: interrupted, twice at once, on a full disk, and what makes a cache another one."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from PIL import Image

from omh_mmseg.feature_cache import build, disk, store
from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.feature_cache.frozen_part import FrozenPart, features_alone
from omh_mmseg.registry import DATASETS, MODELS, TRANSFORMS
from omh_mmseg.structures.frozen_inputs import FrozenInputs

ITEMS, BATCH = 10, 3


@pytest.fixture
def cache(settings, tmp_path) -> Callable[..., FeatureCache]:
    """``cache(split=..., dtype=..., **changes)``: of the train set with a fresh model; changes of the config by key."""

    def make(split: str = 'train', root: Path | None = None, freeze: Any = None, **options) -> FeatureCache:
        kept = {name: options.pop(name) for name in ('dtype', 'fields', 'images') if name in options}
        config = settings('smooseg', **options)
        model = MODELS.build(config.model)
        model.init_weights()
        dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
        dataset.full_init()
        freeze = freeze or features_alone(model.backbone)
        part = FrozenPart(model.backbone, config.model.backbone, model.data_preprocessor, freeze)
        return FeatureCache(root or tmp_path / 'cache', dataset, part, split == 'train', **kept)

    return make


def complete(cache: FeatureCache, **options) -> CachedFeatures:
    return cache.complete(BATCH, progress=False, **options)


def contents(cached: CachedFeatures) -> list[tuple]:
    """Everything that the items hold, comparable."""
    items = [cached[item] for item in range(len(cached))]
    return [
        (
            item['inputs'].features.double().numpy().tobytes(),
            item['inputs'].size,
            item['data_samples'].gt_sem_seg.data.numpy().tobytes(),
            sorted(item['data_samples'].metainfo.items()),
        )
        for item in items
    ]


@pytest.fixture
def whole(cache, tmp_path) -> list[tuple]:
    """The contents of a cache that was built without interruption."""
    return contents(complete(cache(root=tmp_path / 'whole')))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_items_are_those_of_the_data_set(cache, split) -> None:
    one = cache(split)
    cached = complete(one)
    assert len(cached) == len(one.dataset) and cached.metainfo == one.dataset.metainfo
    for item in range(len(cached)):
        live, kept = one.dataset[item], cached[item]
        images = one.part.preprocessor(dict(inputs=[live['inputs']]), split == 'train')['inputs']
        torch.testing.assert_close(kept['inputs'].features, one.part.backbone(images)[0])
        assert kept['inputs'].size == tuple(live['inputs'].shape[-2:])
        assert kept['data_samples'].metainfo == live['data_samples'].metainfo
        label = kept['data_samples'].gt_sem_seg.data
        assert label.dtype == torch.int64 and torch.equal(label, live['data_samples'].gt_sem_seg.data)


def test_five_crops(settings, tmp_path) -> None:
    """The wrapper lies below the cache: each crop is an item."""
    config = settings('smooseg')
    inner = config.train_dataloader.dataset
    inner.pipeline.insert(2, dict(type='FiveCropPatch'))
    model = MODELS.build(config.model)
    model.init_weights()
    dataset = DATASETS.build(dict(type='FiveCrop', ratio=0.5, dataset=inner))
    dataset.full_init()
    part = FrozenPart(model.backbone, config.model.backbone, model.data_preprocessor, model.freeze)
    cached = complete(FeatureCache(tmp_path / 'cache', dataset, part, True))
    assert len(cached) == 5 * ITEMS
    for item in (0, 7, 49):
        images = part.preprocessor(dict(inputs=[dataset[item]['inputs']]), True)['inputs']
        torch.testing.assert_close(cached[item]['inputs'].features, part.backbone(images)[0])
    other = DATASETS.build(dict(type='FiveCrop', ratio=0.6, dataset=inner))
    other.full_init()
    assert FeatureCache(tmp_path / 'cache', other, part, True).missing() == 5 * ITEMS


def test_items_without_labels(cache, photos) -> None:
    shutil.rmtree(photos / 'labels')
    cached = complete(cache())
    assert 'gt_sem_seg' not in cached[0]['data_samples']


def test_manifest_is_readable(cache) -> None:
    one = cache(dtype='bfloat16')
    complete(one)
    manifest = json.loads((one.folder / 'manifest.json').read_text())
    assert manifest['dtype'] == 'bfloat16' and manifest['fingerprint']['items'] == ITEMS
    assert manifest['fields'] == dict(features='bfloat16', sample='label and metadata')
    assert any('ResizeToCover(size=(32, 32)' in text for text in manifest['fingerprint']['pipeline'])


def test_further_fields_join(cache, passes) -> None:
    """Mirrored features are added to a complete cache; the others stay as they are."""
    before = cache()
    complete(before)
    stamp = before.files['features'].data_path.stat().st_mtime_ns
    both = cache(fields=('features', 'mirrored'))
    assert both.folder == before.folder and both.missing() == ITEMS
    cached = complete(both)
    assert before.files['features'].data_path.stat().st_mtime_ns == stamp
    images = both.part.preprocessor(dict(inputs=[both.dataset[4]['inputs']]), True)['inputs']
    torch.testing.assert_close(cached[4]['inputs'].mirrored, both.part.backbone(images.flip(-1))[0])


# ---- interruptions


def _hangs_while_writing(make: Callable[[], FeatureCache], writes: int, mark: Path) -> None:
    """Build; after so many writes stop in the middle of one, for good."""
    write, done = os.pwrite, []

    def hanging(file: int, data: memoryview, offset: int) -> int:
        done.append(offset)
        if len(done) > writes:
            write(file, data[: len(data) // 2], offset)
            mark.touch()
            time.sleep(600)
        return write(file, data, offset)

    store.os.pwrite = hanging
    complete(make())


@pytest.mark.parametrize('writes', [0, 13, 14, 15])
def test_killed_build_goes_on(cache, whole, tmp_path, passes, writes) -> None:
    """SIGKILL in the middle of a content or a record; the next call makes the rest, with the same result bit by bit."""
    mark = tmp_path / 'mark'
    process = multiprocessing.get_context('fork').Process(target=_hangs_while_writing, args=(cache, writes, mark))
    process.start()
    await_file(mark)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    one = cache()
    # A content and a record of two fields are four writes for an item.
    assert one.missing() == ITEMS - writes // 4
    passes.clear()
    assert contents(complete(one)) == whole
    assert sum(passes) == build.PROBED_ITEMS + ITEMS - writes // 4 // BATCH * BATCH


def _waits_in_a_block(make: Callable[[], FeatureCache], mark: Path, go: Path) -> None:
    """Build, but stay in the first block until told to go on."""
    one = make()
    freeze = one.part.freeze

    def waiting(images: torch.Tensor) -> FrozenInputs:
        if len(images) == BATCH and not go.exists():
            mark.touch()
            await_file(go)
        return freeze(images)

    one.part.freeze = waiting
    complete(one)


@pytest.mark.parametrize('workers', [0, 2])
def test_two_processes_at_once(cache, whole, tmp_path, passes, workers, monkeypatch) -> None:
    """The second makes what the first is not at, waits for the rest, and both have all."""
    mark, go = tmp_path / 'mark', tmp_path / 'go'
    process = multiprocessing.get_context('fork').Process(target=_waits_in_a_block, args=(cache, mark, go))
    process.start()
    await_file(mark)
    sleeps = []
    monkeypatch.setattr(build.time, 'sleep', lambda seconds: (sleeps.append(seconds), go.touch(), SLEEP(seconds)))
    one = cache()
    passes.clear()
    cached = one.complete(BATCH, workers, progress=False)
    assert sleeps and sum(passes) == build.PROBED_ITEMS + ITEMS - BATCH
    assert contents(cached) == whole
    process.join(60)
    assert process.exitcode == 0
    assert contents(complete(cache())) == whole


SLEEP = time.sleep


def await_file(path: Path) -> None:
    limit = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < limit, f'no {path}'
        SLEEP(0.01)


# ---- full disks


def test_no_room(cache, monkeypatch) -> None:
    """The estimate is made before anything is written."""
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=1000))
    one = cache()
    with pytest.raises(OSError, match=r'needs 0.00 GiB more in .* for 10 items of float32, and 0.00 GiB are free') as e:
        complete(one)
    assert e.value.errno == errno.ENOSPC and not one.folder.exists()


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_estimate(cache, dtype) -> None:
    one = cache(dtype=dtype)
    needed = one.needed_bytes(one.probe())
    complete(one)
    held = sum(file.stat().st_size for name in ('bin', 'index') for file in one.folder.glob(f'*.{name}'))
    assert needed == pytest.approx(held, rel=0.1)
    assert one.needed_bytes(one.probe()) == 0
    assert '10 of 10 items are there' in one.describe()


def test_disk_fills_up(cache, whole, monkeypatch) -> None:
    """What was written before stays valid, and the next call makes the rest."""
    write, written = os.pwrite, []

    def filling(file: int, data: Any, offset: int) -> int:
        written.append(len(data))
        if len(written) > 20:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return write(file, data, offset)

    monkeypatch.setattr(store.os, 'pwrite', filling)
    with pytest.raises(OSError, match=r'the disk of .* is full; 5 of 10 items of the feature cache are there'):
        complete(cache())
    monkeypatch.setattr(store.os, 'pwrite', write)
    one = cache()
    assert one.missing() == ITEMS - 5
    assert contents(complete(one)) == whole


# ---- damage


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'gone', 'index'])
@pytest.mark.parametrize('name', ['features', 'sample'])
def test_damaged_items_are_made_anew(cache, whole, name, damage) -> None:
    one = cache()
    complete(one)
    file = one.files[name]
    if damage == 'cut':
        os.truncate(file.data_path, file.data_path.stat().st_size // 2)
    elif damage == 'flipped':
        content = bytearray(file.data_path.read_bytes())
        content[len(content) // 2] ^= 1
        file.data_path.write_bytes(content)
    elif damage == 'gone':
        file.data_path.unlink()
    else:
        file.index_path.write_bytes(b'\xff' * 100)
    assert contents(complete(cache())) == whole


def test_unverified_damage_stops_the_run(cache) -> None:
    one = cache()
    complete(one)
    content = bytearray(one.files['features'].data_path.read_bytes())
    content[int(one.files['features']._records[2]['offset'])] ^= 1
    one.files['features'].data_path.write_bytes(content)
    cached = complete(cache(), verify=False)
    with pytest.raises(store.DamagedItemError, match='item 2 of features .* its check sum is wrong. Start again'):
        cached[2]


# ---- other content


@pytest.mark.slow
def test_another_key(cache, photos, weights) -> None:
    """Whatever the features, labels and metadata depend on; each alone."""
    keys = {name: cache(**options).folder.name for name, options in (
        ('as it is', {}),
        ('type', dict(dtype='float16')),
        ('other images', dict(split='val')),
        ('pipeline', {'train_dataloader.dataset.pipeline.2.size': 40, 'train_dataloader.dataset.pipeline.3.size': 32}),
        ('interpolation', {'train_dataloader.dataset.pipeline.2.interpolation': 'nearest'}),
        ('packing', {'train_dataloader.dataset.pipeline.4.meta_keys': ['img_path', 'img_shape']}),
        ('normalisation', {'model.data_preprocessor.mean': [121.0] * 3}),
        ('channels', {'model.data_preprocessor.bgr_to_rgb': False}),
        ('padding', {'model.data_preprocessor.size_divisor': 24}),
        ('backbone', {'model.backbone.backbone.pre_norm': True, 'model.backbone.checkpoint': None}),
        ('layer', {'model.backbone.feature': 'keys'}),
        ('classes', {'train_dataloader.dataset.num_classes': 5}),
    )}  # fmt: skip
    assert cache().folder.name == keys['as it is']
    stamp = (photos / 'images' / 'train' / '03.png').stat()
    os.utime(photos / 'images' / 'train' / '03.png', ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    keys['touched image'] = cache().folder.name
    label = photos / 'labels' / 'train' / '04.png'
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(label)
    keys['changed label'] = cache().folder.name
    (photos / 'images' / 'train' / '09.png').unlink()
    keys['absent image'] = cache().folder.name
    state = torch.load(weights)
    name = next(iter(state))
    state[name] = state[name] + 1e-3
    torch.save(state, weights)
    keys['changed weights'] = cache().folder.name
    assert len(set(keys.values())) == len(keys)


def test_paddings_that_come_to_the_same(cache) -> None:
    assert cache(**{'model.data_preprocessor.size_divisor': 1}).folder == cache().folder


def test_changed_image_is_never_stale(cache, photos) -> None:
    before = complete(cache())
    path = photos / 'images' / 'train' / '02.png'
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    after = complete(cache())
    assert not torch.equal(after[2]['inputs'].features, before[2]['inputs'].features)
    assert torch.equal(after[3]['inputs'].features, before[3]['inputs'].features)


def test_moved_folder(cache, photos, passes) -> None:
    """The cache stays valid, and tells the new paths."""
    complete(cache())
    moved = photos.with_name('moved')
    photos.rename(moved)
    passes.clear()
    cached = complete(cache(**{'train_dataloader.dataset.data_root': str(moved)}))
    assert passes == [1] * build.PROBED_ITEMS
    sample = cached[1]['data_samples']
    assert sample.img_path == str(moved / 'images/train/01.png')
    assert sample.seg_map_path == str(moved / 'labels/train/01.png')


def test_changed_code_is_noticed(cache) -> None:
    """Nothing in the key tells that a backbone computes something else now."""
    complete(cache())
    one = cache()
    one.part.freeze = lambda images: FrozenInputs(1.2 * one.part.backbone(images), size=(32, 32))
    with pytest.raises(ValueError, match='holds other features of item 0 than what the model and the pipeline give'):
        complete(one)


# ---- what cannot be cached


@TRANSFORMS.register_module()
class NoiseOfTheCacheTests(BaseTransform):
    def transform(self, results: dict) -> dict:
        results['img'] = results['img'] // 2 + np.random.randint(0, 100, results['img'].shape, dtype=np.uint8)
        return results


@pytest.mark.parametrize('nested', [False, True])
def test_random_transforms_by_name(cache, nested) -> None:
    flip = dict(type='RandomFlip', prob=0.5)
    added = dict(type='RandomApply', transforms=[flip]) if nested else flip
    with pytest.raises(ValueError, match='the pipeline draws at random .*RandomFlip.*Take that out of the pipeline'):
        cache(**{'train_dataloader.dataset.pipeline.1': added})


def test_random_transforms_by_what_they_do(cache) -> None:
    one = cache(**{'train_dataloader.dataset.pipeline.1': dict(type='NoiseOfTheCacheTests')})
    state = torch.get_rng_state(), np.random.get_state()[1]
    with pytest.raises(ValueError, match='(?s)item 0 .* another one at each access.*NoiseOfTheCacheTests'):
        complete(one)
    assert torch.equal(state[0], torch.get_rng_state()) and np.array_equal(state[1], np.random.get_state()[1])
    assert not one.folder.exists()


def test_trained_backbone(cache) -> None:
    with pytest.raises(ValueError, match='needs a backbone that is not trained'):
        one = cache()
        next(one.part.backbone.parameters()).requires_grad_(True)
        FeatureCache(one.folder, one.dataset, one.part, True)


def test_unknown_type(cache) -> None:
    with pytest.raises(ValueError, match=r"must be one of \['bfloat16', 'float16', 'float32'\]; got 'int8'"):
        cache(dtype='int8')


def test_values_that_do_not_fit(cache) -> None:
    one = cache(dtype='float16')
    one.part.freeze = lambda images: FrozenInputs(1e6 * one.part.backbone(images), size=(32, 32))
    with pytest.raises(ValueError, match='do not fit float16; cache them as bfloat16 or float32'):
        complete(one)
