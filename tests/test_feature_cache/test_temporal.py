"""The temporal term on every host, from live features and from cached ones."""

from __future__ import annotations

import pytest
from mmengine.runner import Runner

from omh_mmseg.datasets.video.pairs import TemporalPairs
from omh_mmseg.datasets.video.with_flow import FramesWithFlow
from omh_mmseg.engine.launch import use_test_time_augmentation
from omh_mmseg.evaluation.protocols import apply_protocol
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.registry import MODELS

HOSTS = ['smooseg', *(pytest.param(host, marks=pytest.mark.slow) for host in ('stego', 'hp'))]


def in_frames(config, term: bool = True, **pairs):
    """The run on the same photos as frames of a sequence, ``00.png`` to ``09.png``."""
    dataset = config.train_dataloader.dataset
    (dataset.dataset if config.model.type == 'STEGO' else dataset).type = 'VideoFolder'
    config.custom_hooks = [*config.custom_hooks, dict(type='TemporalPairsHook', **pairs)]
    if term:
        config.model.temporal = dict(type='TemporalConsistencyLoss', loss_weight=0.5, begin=1)
    return config


@pytest.mark.parametrize('host', HOSTS)
def test_same_from_the_cache_and_off_is_off(settings, train, tmp_path, host):
    _, without = train(settings(host, omh=True, steps=3))
    _, off = train(in_frames(settings(host, omh=True, steps=3), term=False))
    assert off == without
    runner, live = train(in_frames(settings(host, omh=True, steps=3)))
    assert isinstance(runner.train_dataloader.dataset, TemporalPairs)
    config = in_frames(settings(host, omh=True, workers=1, folder=tmp_path / 'cache', steps=3))
    cached_runner, cached = train(config)
    assert cached_runner.train_dataloader.num_workers == 1  # the flow is made from images
    inner = cached_runner.train_dataloader.dataset
    while getattr(inner, 'wraps_cache', False):
        inner = inner.dataset
    assert isinstance(inner, CachedFeatures)
    for one, other in zip(cached, live):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    # Before the term begins a step is that of a run without it.
    assert 'loss_temporal' not in live[0] and {key: live[0][key] for key in without[0]} == without[0]
    assert live[1]['loss_temporal'] > 0 and 0 < live[1]['temporal_shown'] <= 1
    assert {f'temporal_{head}' for head in ('probe', 'level1', 'level2', 'level3')} < live[1].keys()


def test_what_reaches_nothing(settings, train):
    with pytest.raises(ValueError, match='gap=2 .* would reach nothing: the model has no temporal term'):
        train(in_frames(settings('smooseg', steps=1), term=False, gap=2))
    config = in_frames(settings('smooseg', steps=1))
    config.custom_hooks = config.custom_hooks[:-1]
    with pytest.raises(ValueError, match='needs pairs of frames, and the batch has none'):
        train(config)
    config = settings('smooseg', steps=1)
    config.model.temporal = dict(type='TemporalConsistencyLoss')
    config.custom_hooks = [*config.custom_hooks, dict(type='TemporalPairsHook')]
    with pytest.raises(ValueError, match='VideoFolder in place of FolderSegDataset'):
        train(config)


def test_first_steps(settings):
    """What begins later than a run is named by the setting that says when."""
    for host, expected in (('hp', {'model.warmup': 3}), ('eagle', {'model.switch_step': 4}), ('smooseg', {})):
        config = in_frames(settings(host), term=host == 'smooseg')
        assert MODELS.build(config.model).first_steps == (expected or {'model.temporal.begin': 1})


def test_a_frozen_code_takes_no_term(settings):
    with pytest.raises(ValueError, match='frozen in PriMaPs: it would reach nothing'):
        MODELS.build(in_frames(settings('primaps')).model)


@pytest.mark.parametrize('protocol', ['mmseg', 'video'])
def test_test_time_augmentation(settings, tmp_path, protocol):
    """Of images without labels, whose figures are those of the plain image; not of the scores of a video."""

    def scores(augmented: bool) -> dict[str, float]:
        config = settings('smooseg')
        config.test_dataloader.dataset.update(type='VideoFolder', split='train', fps=2.0, labels='none')
        config.default_hooks.label_free = dict(type='LabelFreeHook')
        config.tta_model = dict(type='CodeAveragingTTA')
        config.experiment_name = f'{tmp_path.name}_{augmented}'
        apply_protocol(config, protocol)
        if augmented:
            use_test_time_augmentation(config)
        for loop in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader', 'val_cfg', 'val_evaluator'):
            config[loop] = None
        return Runner.from_cfg(config).test()

    if protocol == 'video':
        with pytest.raises(ValueError, match='not made with test-time augmentation'):
            scores(True)
    else:
        plain = scores(False)
        assert scores(True) == pytest.approx(plain) and any(key.startswith('label_free/') for key in plain)


def test_steadiness_is_scored_from_the_cache(settings, train, tmp_path):
    """The photos of training, which are of one size, as frames of a video."""
    scores = []
    for folder in (None, tmp_path / 'cache'):
        config = settings('smooseg', workers=1, folder=folder, steps=1)
        config.test_dataloader.dataset.update(type='VideoFolder', split='train', fps=2.0)
        apply_protocol(config, 'video')
        runner, _ = train(config)
        scores.append(runner.test())
        loader = runner.test_loop.dataloader
        assert isinstance(loader.dataset, FramesWithFlow) and loader.num_workers == 1
        assert isinstance(loader.dataset.dataset, CachedFeatures) == (folder is not None)
    assert 0 <= scores[0]['probe/TC'] < 100 and scores[0]['probe/changes'] > 0
    # A rounding of the features may turn a pixel that lies between two clusters.
    assert scores[1] == pytest.approx(scores[0], abs=0.5)
