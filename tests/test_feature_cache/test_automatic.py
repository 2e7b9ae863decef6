"""A cache that nobody asked for: used where it is exact, fits and saves forward passes, and left out elsewhere."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.runner import Runner

from omh_mmseg.engine.hooks import FeatureCacheHook
from omh_mmseg.feature_cache import automatic, disk, store
from omh_mmseg.feature_cache.cached_features import CachedFeatures

AUTO = {'default_hooks.feature_cache.folder': 'auto'}


def hook_of(runner: Runner) -> FeatureCacheHook:
    (hook,) = (one for one in runner._hooks if isinstance(one, FeatureCacheHook))
    return hook


def assert_live(runner: Runner, reason: str) -> None:
    assert not isinstance(runner.train_dataloader.dataset, CachedFeatures)
    assert reason in hook_of(runner).declined['train']


def test_used_beside_the_work_directory(settings, train, tmp_path, passes) -> None:
    """As from a cache that is asked for; a second run computes the probes alone; one validation is not worth one."""
    _, asked = train(settings('smooseg', folder=tmp_path / 'cache'))
    runner, cached = train(settings('smooseg', **AUTO))
    assert cached == asked
    dataset = runner.train_dataloader.dataset
    assert isinstance(dataset, CachedFeatures)
    assert dataset.fields['features'].folder.parent == tmp_path / 'feature_cache'
    assert list(hook_of(runner).declined) == ['val']
    passes.clear()
    train(settings('smooseg', **AUTO))
    # The look at one image, three probes, and the validation with its own look.
    assert passes == [1] * 4 + [1] + [1] * 4


def test_several_validations_are_worth_one(settings, train, tmp_path) -> None:
    runner, _ = train(settings('smooseg', **AUTO, **{'train_cfg.val_interval': 2}))
    assert isinstance(runner.val_loop.dataloader.dataset, CachedFeatures) and hook_of(runner).declined == {}


def test_the_neighbour_index_fills_it(settings, train, tmp_path, passes) -> None:
    train(settings('stego', **AUTO, **{'work_dir': str(tmp_path / 'run0')}))
    # Looks and probes of one image each, and the ten images once.
    assert sum(count for count in passes if count > 1) == 10


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        (dict(steps=2), 'it would take 10 forward passes of an image, and save 8'),
        ({'default_hooks.feature_cache.limit_gib': 1e-6}, 'limit_gib is 1e-06'),
    ],
    ids=['few steps', 'large'],
)
def test_left_out(settings, train, tmp_path, changes, reason) -> None:
    runner, _ = train(settings('smooseg', **{**AUTO, **changes}))
    assert_live(runner, reason)
    assert not (tmp_path / 'feature_cache').exists()


def test_left_out_where_items_are_drawn(settings, train) -> None:
    config = settings('smooseg', **AUTO)
    config.train_dataloader.dataset.pipeline.insert(4, dict(type='RandomFlip', prob=0.5))
    runner, _ = train(config)
    assert_live(runner, 'RandomFlip')


def test_left_out_where_nothing_can_be_written(settings, train, tmp_path, monkeypatch) -> None:
    (tmp_path / 'feature_cache').touch()
    runner, _ = train(settings('smooseg', **AUTO))
    assert_live(runner, f'{tmp_path / "feature_cache"} cannot be written')
    (tmp_path / 'feature_cache').unlink()
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=10000))
    runner, _ = train(settings('smooseg', **AUTO))
    assert_live(runner, 'are free at')
    monkeypatch.undo()

    def full(self: Any, *args: Any) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(store.FieldFile, 'put', full)
    runner, losses = train(settings('smooseg', **AUTO))
    assert_live(runner, 'may be deleted')
    assert len(losses) == 6


def test_views_need_one(settings, train) -> None:
    changes = {'default_hooks.feature_cache.views': 2, 'default_hooks.feature_cache.limit_gib': 1e-6}
    with pytest.raises(ValueError, match='views=2 of the feature cache would reach nothing, without one'):
        train(settings('hp', **AUTO, **changes))


def test_all_ranks_do_the_same(monkeypatch) -> None:
    monkeypatch.setattr(automatic, 'all_gather_object', lambda mine: ['', 'no room', mine])
    assert automatic._agreed('') == 'no room'


def test_mixed_precision_is_not_cached() -> None:
    assert 'mixed precision' in automatic.half_precision(dict(optim_wrapper=dict(type='mmengine.AmpOptimWrapper')))
    assert automatic.half_precision(dict(optim_wrapper=dict(type='OptimWrapper'))) == '' == automatic.half_precision({})


def test_no_work_directory_no_cache() -> None:
    assert automatic.folder_of('auto', None) is None and automatic.folder_of('x', None) == 'x'
    assert automatic.folder_of('auto', 'work_dirs/a') == str(Path('work_dirs/feature_cache').absolute())
