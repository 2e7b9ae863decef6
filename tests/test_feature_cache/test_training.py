"""Training and evaluation from the cache against live ones, in runs of mmengine's runner."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.structures.frozen_inputs import FrozenItem

CASES = [('stego', True, 2)]
OTHERS = [
    (host, omh, workers)
    for host in ('stego', 'hp', 'smooseg', 'eagle', 'primaps')
    for omh in (False, True)
    for workers in (0, 2)
    if (host, omh, workers) not in CASES
]


def assert_close(now: list[dict], then: list[dict], **tolerance: float) -> None:
    assert len(now) == len(then)
    for one, other in zip(now, then):
        assert one == pytest.approx(other, **tolerance)


def scores(runner: Runner, loop: str = 'val') -> dict[str, float]:
    """Scores of an evaluation by the runner's model."""
    return runner.val_loop.run() if loop == 'val' else runner.test_loop.run()


@pytest.mark.parametrize(
    ('host', 'omh', 'workers'), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)]
)
def test_same_losses_and_scores(settings, train, tmp_path, host, omh, workers) -> None:
    """The losses of 50 steps agree to 1e-6, the scores after them exactly; the second run computes nothing."""
    _, live = train(settings(host, omh, workers, steps=50))
    _, cached = train(settings(host, omh, workers, tmp_path / 'cache', steps=50))
    assert_close(cached, live, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    'host', ['smooseg', *(pytest.param(host, marks=pytest.mark.slow) for host in ('stego', 'hp', 'eagle'))]
)
def test_passes_are_saved(settings, train, tmp_path, passes, host) -> None:
    """A complete cache leaves the three probed items of each loop, and HP and EAGLE their jittered view."""
    train(settings(host, folder=tmp_path / 'cache', steps=2))
    passes.clear()
    runner, _ = train(settings(host, folder=tmp_path / 'cache', steps=5))
    jittered = [4] * 5 if host in ('hp', 'eagle') else []
    # The validation after the last step comes last; HP's pools come from the cache as well.
    assert passes == [1] * 3 + jittered + [1] * 3
    dataset = runner.train_dataloader.dataset
    dataset = dataset.dataset if host == 'stego' else dataset
    assert isinstance(dataset, CachedFeatures) and dataset.images == (host in ('hp', 'eagle'))


def test_proposals_alone_are_kept(settings, train, tmp_path, passes) -> None:
    """Features are then computed from the images; without the cache the same proposals are made at each step."""
    _, live = train(settings('primaps', steps=3))
    for fields in (['proposals'], None):
        changes = {'default_hooks.feature_cache.fields': fields}
        runner, cached = train(settings('primaps', folder=tmp_path / 'cache', steps=3, **changes))
        assert_close(cached, live, rel=1e-6, abs=1e-6)
        item = runner.train_dataloader.dataset[3]['inputs']
        assert (item.features is None) == (fields is not None) and item.image is not None
        assert item.extras['proposals'].dtype == torch.uint8 and item.extras['proposals'].shape == (32, 32)
    with pytest.raises(ValueError, match=r"fields must be among those of PriMaPs, \['features', 'mirrored', 'pro"):
        train(settings('primaps', folder=tmp_path / 'cache', **{'default_hooks.feature_cache.fields': ['weights']}))
    for one in ('features', 'mirrored'):
        with pytest.raises(ValueError, match=r'PriMaPs reads features and mirrored together: name both in'):
            changes = {'default_hooks.feature_cache.fields': [one, 'proposals']}
            train(settings('primaps', folder=tmp_path / 'cache', **changes))


@pytest.mark.slow
def test_hp_without_jitter_decodes_nothing(settings, train, tmp_path, monkeypatch) -> None:
    changes = {'model.hidden_positive_loss.consistency_weight': 0.0}
    _, live = train(settings('hp', **changes))
    runner, cached = train(settings('hp', folder=tmp_path / 'cache', **changes))
    assert_close(cached, live, rel=1e-6, abs=1e-6)
    monkeypatch.setattr(runner.train_dataloader.dataset.dataset, '__getitem__', None, raising=False)
    item = runner.train_dataloader.dataset[3]['inputs']
    assert isinstance(item, FrozenItem) and item.image is None and item.extras['weights'].shape == (9, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float16', 5e-3), ('bfloat16', 4e-2)])
def test_narrow_types_are_close(settings, train, tmp_path, dtype, tolerance) -> None:
    _, live = train(settings('smooseg'))
    changes = {'default_hooks.feature_cache.dtype': dtype}
    runner, cached = train(settings('smooseg', folder=tmp_path / 'cache', **changes))
    assert_close(cached, live, rel=tolerance, abs=tolerance)
    assert cached != live
    assert runner.train_dataloader.dataset[0]['inputs'].features.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        pytest.param({'model.test_cfg': dict(mode='whole', flip=True)}, marks=pytest.mark.slow),
        pytest.param({'model.test_cfg': dict(mode='slide', crop_size=16, stride=8)}, marks=pytest.mark.slow),
        pytest.param({'model.data_preprocessor.test_cfg': dict(size_divisor=32)}, marks=pytest.mark.slow),
    ],
    ids=['whole', 'flip', 'slide', 'padded'],
)
def test_same_scores(settings, train, tmp_path, changes) -> None:
    """Images of different sizes; twice with the same cache, by the loops of validation and test."""
    runner, _ = train(settings('stego', omh=True, **changes))
    live = scores(runner)
    assert live
    cached = settings('stego', omh=True, folder=tmp_path / 'cache', **changes)
    cached.load_from = str(Path(runner.work_dir) / 'iter_6.pth')
    for _ in range(2):
        other = Runner.from_cfg(cached)
        assert other.test() == live
    slides = changes.get('model.test_cfg', {}).get('mode') == 'slide'
    assert isinstance(other.test_loop.dataloader.dataset, CachedFeatures) == (not slides)


def test_padding_of_training(settings, train, tmp_path) -> None:
    """The cached features are of the padded images."""
    changes = {'model.data_preprocessor.size_divisor': 48}
    _, live = train(settings('smooseg', steps=3, **changes))
    runner, cached = train(settings('smooseg', folder=tmp_path / 'cache', steps=3, **changes))
    assert_close(cached, live, rel=1e-6, abs=1e-6)
    assert runner.train_dataloader.dataset[0]['inputs'].features.shape[-2:] == (6, 6)


def test_crf_has_the_images(settings, train, tmp_path) -> None:
    pytest.importorskip('pydensecrf')
    changes = {'model.test_cfg': dict(mode='whole', crf=dict(iterations=2))}
    runner, _ = train(settings('smooseg', **changes))
    again, _ = train(settings('smooseg', folder=tmp_path / 'cache', **changes))
    assert scores(again) == scores(runner)
    assert again.val_loop.dataloader.dataset.images


def test_resume(settings, train, tmp_path) -> None:
    """Six steps at once, or three and three: the sampler goes on where it was."""
    changes = {'default_hooks.checkpoint.interval': 3}
    runner, whole = train(settings('smooseg', workers=2, folder=tmp_path / 'cache', **changes))
    config = settings('smooseg', workers=2, folder=tmp_path / 'cache')
    config.load_from, config.resume = str(Path(runner.work_dir) / 'iter_3.pth'), True
    _, rest = train(config)
    assert rest == whole[3:]


@pytest.mark.slow
def test_switched_off(settings, train) -> None:
    runner, _ = train(settings('smooseg', steps=1))
    assert not isinstance(runner.train_dataloader.dataset, CachedFeatures)


@pytest.mark.slow
def test_splits(settings, train, tmp_path) -> None:
    changes = {'default_hooks.feature_cache.splits': ['val']}
    runner, _ = train(settings('smooseg', folder=tmp_path / 'cache', steps=1, **changes))
    assert not isinstance(runner.train_dataloader.dataset, CachedFeatures)
    assert isinstance(runner.val_loop.dataloader.dataset, CachedFeatures)


def test_changed_needs_between_evaluations(settings, train, tmp_path) -> None:
    """Flip averaging that is switched on later gets its features, sliding windows the images."""
    runner, _ = train(settings('smooseg', workers=1, folder=tmp_path / 'cache', steps=1))
    for options, kind in (
        (dict(flip=True), CachedFeatures),
        (dict(mode='slide', crop_size=16, stride=8), object),
        (dict(), CachedFeatures),
    ):
        runner.model.use_test_cfg(options)
        assert scores(runner)
        loader = runner.val_loop.dataloader
        assert isinstance(loader.dataset, CachedFeatures) == (kind is CachedFeatures)
        # Images are read as the config says.
        assert (loader.num_workers, loader.persistent_workers) == ((0, False) if kind is CachedFeatures else (1, True))


@pytest.mark.parametrize(
    ('host', 'changes', 'expected'),
    [
        ('stego', {}, [0, 0]),
        ('stego', {'default_hooks.feature_cache.workers': 1}, [1, 1]),
        ('hp', {}, [2, 0]),  # its images come as well
        ('smooseg', {'train_dataloader.sampler.type': 'InfiniteSampler'}, [2, 0]),
    ],
)
def test_features_alone_are_read_without_workers(settings, train, tmp_path, host, changes, expected) -> None:
    """With the same losses, bit by bit."""
    config = settings(host, workers=2, folder=tmp_path / 'cache', steps=2, **changes)
    runner, losses = train(config)
    loaders = runner.train_dataloader, runner.val_dataloader
    assert [loader.num_workers for loader in loaders] == expected
    config.default_hooks.feature_cache.workers = None
    runner, others = train(config)
    assert [runner.train_dataloader.num_workers, runner.val_dataloader.num_workers] == [2, 2]
    assert others == losses


def test_batches_that_pad_further_are_refused(settings, train, tmp_path) -> None:
    config = settings('smooseg', folder=tmp_path / 'cache', steps=30)
    config.train_dataloader.dataset.split = 'val'
    config.train_dataloader.dataset.pipeline = [config.train_dataloader.dataset.pipeline[place] for place in (0, 1, 4)]
    config.train_dataloader.batch_size = 2
    with pytest.raises(ValueError, match='cached features are of images padded on their own'):
        train(config)


def _train_rank(rank: int, port: int, config: object, folder: Path) -> None:
    torch.distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    runner = Runner.from_cfg(config)
    runner.train()
    torch.save({name: value.clone() for name, value in runner.model.state_dict().items()}, folder / f'{rank}.pth')
    torch.distributed.destroy_process_group()


def test_two_ranks(settings, tmp_path) -> None:
    """Two ranks share the building and train as without a cache."""
    results = {}
    for name, folder in (('live', None), ('cached', tmp_path / 'cache')):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        config = settings('smooseg', folder=folder, steps=4)
        config.work_dir, config.experiment_name = str(tmp_path / name), f'{tmp_path.name}_{name}'
        (tmp_path / name).mkdir()
        fork = multiprocessing.get_context('fork')
        ranks = [fork.Process(target=_train_rank, args=(rank, port, config, tmp_path / name)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(240)
            assert process.exitcode == 0
        results[name] = [torch.load(tmp_path / name / f'{rank}.pth') for rank in range(2)]
    for rank in range(2):
        for name, value in results['live'][rank].items():
            np.testing.assert_allclose(results['cached'][rank][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
