"""The HP host: what a step is made of, the moving average, the schedule of lambda, and its errors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from omh_mmseg.models.losses.local_positives import feature_affinity, neighbour_weights
from omh_mmseg.registry import MODELS

LOSS = dict(type='HiddenPositiveLoss', temperature=0.6, random_negatives=0.3, consistency_weight=0.05)
CONVOLUTIONAL = dict(type='FrozenBackbone', backbone=dict(type='mmpretrain.ResNet', depth=18), stride=32)


@pytest.fixture
def tiny_hp(tiny_stego, tiny_vit) -> Callable[..., nn.Module]:
    """``tiny_hp(filled=True, ...)``: HP with 4 classes on the tiny ViT; keywords replace parts."""

    def build(filled: bool = True, **parts) -> nn.Module:
        config = dict(
            type='HiddenPositives',
            num_classes=4,
            data_preprocessor=dict(
                type='ViewsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True,
            ),
            backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
            decode_head=dict(type='ProjectionHead', channels=10),
            cluster_probe=dict(type='ClusterProbe'),
            linear_probe=dict(type='LinearProbe'),
            hidden_positive_loss=LOSS,
            pool_size=8,
            total_iterations=10,
        )  # fmt: skip
        model = MODELS.build(copy.deepcopy(config | parts))
        model.init_weights()
        model.train()
        if filled:
            for pool in (model.agnostic_pool, model.specific_pool):
                pool.copy_(F.normalize(torch.randn_like(pool), dim=1))
        return model

    return build


def images(count: int = 2, size: tuple[int, int] = (32, 40)) -> Tensor:
    return torch.randn(count, 3, *size)


def samples(count: int = 2, size: tuple[int, int] = (32, 40)) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 4, (1, *size)))) for _ in range(count)]


def total_of(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in losses.items() if name.startswith('loss_')]).sum()


def test_losses_and_who_learns(tiny_hp):
    model = tiny_hp(omh_head=dict(type='OMHHead', reach=dict(type='FixedWeight', begin=0)))
    losses = model.loss(images(), samples())
    assert {name for name in losses if name.startswith('loss_')} == {
        'loss_contrast', 'loss_consistency', 'loss_cluster_probe', 'loss_linear_probe', 'loss_omh_centre',
        'loss_omh_match',
    }  # fmt: skip
    assert losses['code_gradient_host'] > 0
    total_of(losses).backward()
    for name, parameter in model.named_parameters():
        trained = not name.startswith(('backbone.', 'ema_head.'))
        assert parameter.requires_grad == trained, name
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name


def test_probes_leave_the_code_alone(tiny_hp):
    model = tiny_hp()
    losses = model.loss(images(), samples())
    (losses['loss_cluster_probe'] + losses['loss_linear_probe']).backward()
    assert all(parameter.grad is None for parameter in model.decode_head.parameters())
    assert model.project_head.weight.grad is None


def test_moving_average(tiny_hp):
    """docs/methods/hp.md 3B.3: equal at first, then m theta' + (1 - m) theta at each training step, before the
    optimiser's.
    """
    model = tiny_hp(ema_momentum=0.9)
    average, head = model.ema_head.module, model.decode_head
    assert all(torch.equal(one, other) for one, other in zip(average.parameters(), head.parameters()))
    model.loss(images(), samples())
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(1)
    expected = [0.9 * one + 0.1 * other for one, other in zip(average.parameters(), head.parameters())]
    model.loss(images(), samples())
    for one, other in zip(average.parameters(), expected):
        torch.testing.assert_close(one, other)
    model.eval()
    model.predict(images(), samples())
    model.pool_vectors(images())
    for one, other in zip(average.parameters(), expected):
        torch.testing.assert_close(one, other)


def test_the_average_starts_as_the_head_that_is_initialised_or_loaded(tiny_hp):
    head = dict(type='ProjectionHead', channels=10, init_cfg=dict(type='Constant', val=0.5, layer='Conv2d'))
    model = tiny_hp(decode_head=head)
    assert all((parameter == 0.5).all() for name, parameter in model.ema_head.named_parameters() if 'weight' in name)
    model.decode_head.linear.weight.data.fill_(2)
    model.synchronise_average()
    assert (model.ema_head.module.linear.weight == 2).all()
    model.loss(images(), samples())
    model.decode_head.linear.weight.data.fill_(3)
    model.synchronise_average()
    assert (model.ema_head.module.linear.weight == 2).all()


def test_schedule_of_lambda(tiny_hp):
    """docs/methods/hp.md 3B.5: 0 up to the warm-up, then linear; from the counted steps alone."""
    model = tiny_hp(warmup=4, total_iterations=20)
    for step, expected in ((0, 0), (4, 0), (5, 1 / 16), (12, 0.5), (19, 15 / 16), (20, 1), (30, 1)):
        model.iteration.fill_(step)
        assert model.specific_weight() == pytest.approx(expected)
    figures = model.loss(images(), samples())
    assert float(figures['hp_specific_weight']) == 1 and int(model.iteration) == 31


def test_lambda_without_a_length(tiny_hp):
    model = tiny_hp(warmup=1, total_iterations=None)
    model.loss(images(), samples()), model.loss(images(), samples())
    with pytest.raises(ValueError, match='total_iterations, which is None. Add dict.*ReferencePoolHook'):
        model.loss(images(), samples())


def test_no_second_view_without_consistency(tiny_hp, monkeypatch):
    model = tiny_hp(hidden_positive_loss=LOSS | dict(consistency_weight=0.0))
    monkeypatch.setattr(model, 'jittered', lambda *_: pytest.fail('a view was made'))
    assert 'loss_consistency' not in model.loss(images(), samples())


@pytest.mark.parametrize('space', ['reference', 'image'])
def test_second_view_goes_through_backbone_and_head(tiny_hp, monkeypatch, space):
    """With the identity in its place and no dropout the distance is that of eps alone."""
    head = dict(type='ProjectionHead', channels=10, dropout_ratio=0.0)
    model = tiny_hp(decode_head=head, photometric_view=dict(space=space))
    assert model.photometric_view.space == space
    changed = model.loss(images(), samples())['loss_consistency']
    seen = []
    monkeypatch.setattr(model.photometric_view, 'forward', lambda images, *stats: seen.append(stats) or images)
    same = model.loss(images(), samples())['loss_consistency']
    assert float(changed.detach()) > 1e-4
    assert float(same.detach()) == pytest.approx(0.05 * 1e-6 * 10**0.5, rel=0.5)
    assert [item.flatten().tolist() for item in seen[0]] == [
        pytest.approx([123.675, 116.28, 103.53]), pytest.approx([58.395, 57.12, 57.375])
    ]  # fmt: skip


def test_local_positives_come_from_the_attention_of_the_patches(tiny_hp):
    model = tiny_hp()
    batch = images(3)
    features, weights = model._features_and_weights(batch)
    taps = model.backbone.taps(batch, keys=False, attention='heads')
    expected = neighbour_weights(taps.attention.mean(1)[:, 1:, 1:], (4, 5))
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(features, model.backbone(batch))


@pytest.mark.parametrize('affinity', ['attention', 'features'])
def test_both_views_in_one_pass(tiny_hp, monkeypatch, affinity):
    model, batch, view = tiny_hp(local_affinity=affinity), images(3), images(3).flip(0)
    passes = []
    model.backbone.backbone.register_forward_hook(lambda _module, given, _output: passes.append(len(given[0])))
    together, weights = model._features_and_weights(batch, view)
    assert passes == [6]
    alone, expected = model._features_and_weights(batch)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(together, torch.cat([alone, model.backbone(view)]))
    passes.clear()
    model.loss(batch, samples()[:1] * 3)
    assert passes == [6]


def test_local_positives_from_features(tiny_hp):
    """For backbones without attention, and for others where it is chosen."""
    for parts in (dict(), dict(backbone=CONVOLUTIONAL)):
        model = tiny_hp(local_affinity='features', local_scale=7.0, **parts)
        batch = images(2, (64, 96))
        features, weights = model._features_and_weights(batch)
        expected = neighbour_weights(feature_affinity(model.backbone(batch)), tuple(features.shape[-2:]), 7.0)
        torch.testing.assert_close(weights, expected)
        total_of(model.loss(batch, samples(2, (64, 96)))).backward()
        assert model.decode_head.linear.weight.grad.any()


def test_pool_vectors(tiny_hp):
    """docs/methods/hp.md 3B.4: in train mode dropped, unit rows; one patch of each image, drawn apart for the two
    pools.
    """
    model = tiny_hp()
    batch = images(40)
    vectors = model.pool_vectors(batch)
    assert vectors['agnostic_pool'].shape == (40, 24) and vectors['specific_pool'].shape == (40, 10)
    for rows in vectors.values():
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(40))
        assert 0.02 < (rows == 0).float().mean() < 0.25
    model.eval()
    plain = model.pool_vectors(batch)
    features = model.backbone(batch)
    places = {}
    for name, maps in (('agnostic_pool', features), ('specific_pool', model.ema_head(features))):
        cosines = torch.einsum('bc,bcp->bp', plain[name], F.normalize(maps.flatten(2), dim=1))
        torch.testing.assert_close(cosines.amax(1), torch.ones(40))
        places[name] = cosines.argmax(1)
    assert len(places['agnostic_pool'].unique()) > 8
    assert (places['agnostic_pool'] != places['specific_pool']).float().mean() > 0.5
    assert set(model.pool_vectors(batch, ['specific_pool'])) == {'specific_pool'}


def test_pools_are_state(tiny_hp):
    model, fresh = tiny_hp(), tiny_hp(filled=False)
    assert not fresh.pools_are_filled() and model.pools_are_filled()
    fresh.load_state_dict(model.state_dict())
    assert fresh.pools_are_filled() and torch.equal(fresh.specific_pool, model.specific_pool)


def test_sums_of_a_training_step_in_mmengine(tiny_hp):
    from mmengine.optim import OptimWrapper

    model = tiny_hp()
    raw = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)]
    wrapper = OptimWrapper(torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 0.01))
    before = model.decode_head.linear.weight.clone()
    logged = model.train_step(dict(inputs=raw, data_samples=samples(2, (32, 32))), wrapper)
    names = ('loss_contrast', 'loss_consistency', 'loss_cluster_probe', 'loss_linear_probe')
    torch.testing.assert_close(logged['loss'], sum(logged[name] for name in names))
    assert (model.decode_head.linear.weight != before).any()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(tiny_hp, dtype):
    model = tiny_hp()
    with torch.autocast('cpu', dtype=dtype):
        losses = model.loss(images(), samples())
    total_of(losses).backward()
    assert losses['loss_contrast'].dtype == losses['loss_consistency'].dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.fixture
def one_process(tmp_path) -> Iterator[None]:
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('weight', [0.05, 0.0])
def test_distributed_wrapper_of_mmengine(tiny_hp, one_process, weight):
    """It waits for the gradient of every parameter, and its forward pass does not touch the pools."""
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper

    model = tiny_hp(hidden_positive_loss=LOSS | dict(consistency_weight=weight))
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    wrapper = OptimWrapper(torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 0.01))
    pool = model.specific_pool.clone()
    for _ in range(3):
        raw = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)]
        wrapped.train_step(dict(inputs=raw, data_samples=samples(2, (32, 32))), wrapper)
    assert int(model.iteration) == 3 and torch.equal(model.specific_pool, pool)


# ---- errors


def test_attention_asked_of_a_backbone_that_has_none(tiny_hp):
    with pytest.raises(ValueError, match="needs a backbone.*ResNet has none. Set model.local_affinity='features'"):
        tiny_hp(backbone=CONVOLUTIONAL)


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (dict(local_scale=0), r'HiddenPositives: local_scale must be a number in \(0, inf\); got 0'),
        (dict(local_affinity='keys'), r"local_affinity must be one of \('attention', 'features'\); got 'keys'"),
        (dict(photometric_view=dict(space='raw')), "got 'raw'"),
    ],
)
def test_errors_of_the_options(tiny_hp, parts, message):
    with pytest.raises(ValueError, match=message):
        tiny_hp(**parts)


def test_empty_pools(tiny_hp):
    with pytest.raises(RuntimeError, match='pools are empty. Add dict.*ReferencePoolHook'):
        tiny_hp(filled=False).loss(images(), samples())


def test_pairs_are_for_stego(tiny_hp):
    with pytest.raises(ValueError, match=r"single images and got the views \['anchor', 'neighbour'\]"):
        tiny_hp().loss(dict(anchor=images(), neighbour=images()), samples())


def test_spatial_size_that_does_not_match(tiny_hp):
    """A feature map that is not the grid of the attention, as of a backbone with several maps."""
    model = tiny_hp()
    taps = model.backbone.taps
    model.backbone.taps = lambda *args, **kwargs: taps(*args, **kwargs)._replace(features=torch.randn(2, 24, 3, 5))
    with pytest.raises(ValueError, match=r'An affinity of a 3 x 5 grid is \(B, 15, 15\); got \(2, 20, 20\)'):
        model.loss(images(), samples())
