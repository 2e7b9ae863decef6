"""A few cached jittered views of each image in place of a fresh one in each step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.feature_cache.of_model import frozen_part, needs
from omh_mmseg.models.segmentors import HiddenPositives
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, FrozenItem
from omh_mmseg.utils.generators import seeded

ITEMS = 10


@pytest.fixture
def cache(settings, tmp_path) -> Callable[..., FeatureCache]:
    """``cache(views, view_seed, **changes)``: of HP's train set; changes of the config by key."""

    def make(views: int = 2, view_seed: int = 0, **changes) -> FeatureCache:
        config = settings('hp', **changes)
        model = MODELS.build(config.model)
        model.init_weights()
        dataset = DATASETS.build(config.train_dataloader.dataset)
        dataset.full_init()
        part = frozen_part(model, config.model.backbone, 'train', views, view_seed)
        return FeatureCache(tmp_path / 'cache', dataset, part, True, *needs(model, 'train', part))

    return make


def stored(cached: CachedFeatures, number: int, item: int) -> torch.Tensor:
    return cached.value(f'view{number}', item)


def test_a_view_follows_from_seed_item_and_number(cache) -> None:
    """Whatever the batch size, what was drawn before, and how many other views there are."""
    one = cache()
    torch.manual_seed(1)
    cached = one.complete(3, progress=False)
    part, model = one.part, one.part.views.draw.__self__
    assert isinstance(model, HiddenPositives)
    for item, number in ((0, 1), (0, 2), (4, 1), (9, 2)):
        images = part.preprocessor(dict(inputs=[one.dataset[item]['inputs']]), True)['inputs']
        with seeded('view', 0, item, number):
            view = model.photometric_view(images)
        torch.testing.assert_close(stored(cached, number, item), part.backbone(view)[0])
    assert not torch.allclose(stored(cached, 1, 0), stored(cached, 2, 0))
    before = {item: stored(cached, 1, item).clone() for item in range(ITEMS)}
    for path in one.folder.glob('view1-*'):
        path.unlink()
    torch.manual_seed(2)
    again = cache().complete(4, progress=False)
    for item, view in before.items():
        torch.testing.assert_close(stored(again, 1, item), view)


def test_other_settings_are_other_files(cache, passes) -> None:
    """Another seed or jitter never meets the views of this one, more views join them, and the manifest names them."""
    cache(1).complete(5, progress=False)
    passes.clear()
    assert cache(3).passes() == 2 * ITEMS
    cache(3).complete(5, progress=False)
    # Three probes with features and three views each, and both new views of all items.
    assert sum(passes) == 3 * (1 + 3) + 2 * ITEMS
    assert cache(3).missing() == 0
    assert cache(1, view_seed=1).passes() == ITEMS
    assert cache(1, **{'model.photometric_view': dict(hue=0.2)}).passes() == ITEMS
    fields = json.loads((cache(1).folder / 'manifest.json').read_text())['fields']
    assert sum(name.startswith('view') and 'ColorJitter' in text for name, text in fields.items()) == 3


def test_training(settings, train, tmp_path, passes, monkeypatch) -> None:
    """Steps take no forward pass and no image; the same with two workers and after a resume; all views are used."""
    folder, views = tmp_path / 'cache', {'default_hooks.feature_cache.views': 2}
    taken: list[tuple[torch.Tensor, torch.Tensor]] = []
    other_view = HiddenPositives.other_view

    def watched(self: HiddenPositives, images: Any) -> Any:
        view = other_view(self, images)
        if isinstance(view, FrozenInputs):
            taken.extend(zip(images.features, view.features))
        return view

    monkeypatch.setattr(HiddenPositives, 'other_view', watched)
    checkpoints = {'default_hooks.checkpoint.interval': 3}
    runner, losses = train(settings('hp', folder=folder, **views, **checkpoints))
    dataset = runner.train_dataloader.dataset
    item = dataset[3]['inputs']
    assert isinstance(item, FrozenItem) and item.image is None and not dataset.images
    used = set()
    for features, view in taken:
        (place,) = (place for place in range(ITEMS) if torch.equal(features, dataset.value('features', place)))
        used |= {number for number in (1, 2) if torch.equal(view, stored(dataset, number, place))} or {None}
    assert len(taken) == 6 * 4 and used == {1, 2}
    passes.clear()
    resumed = settings('hp', workers=2, folder=folder, **views)
    resumed.load_from, resumed.resume = str(Path(runner.work_dir) / 'iter_3.pth'), True
    _, rest = train(resumed)
    assert rest == losses[3:]
    # The probes of training and validation alone, of which those of training have two views.
    assert passes == [1] * (3 * 3 + 3)


@pytest.mark.parametrize(
    ('host', 'changes', 'message'),
    [
        ('hp', dict(folder=None), 'views=2 of the feature cache would reach nothing'),
        ('hp', {'default_hooks.feature_cache.splits': ['val']}, "splits with 'train'"),
        ('smooseg', {}, 'SmooSeg trains on no jittered view'),
        ('hp', {'model.hidden_positive_loss.consistency_weight': 0.0}, 'its consistency_weight is 0'),
    ],
)
def test_views_that_reach_nothing(settings, train, tmp_path, host, changes, message) -> None:
    options = {'folder': tmp_path / 'cache', 'default_hooks.feature_cache.views': 2, **changes}
    with pytest.raises(ValueError, match=message):
        train(settings(host, **options))
