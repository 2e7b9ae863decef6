"""What PriMaPs refuses, forgets, shares and begins from, and how it predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import nn

from omh_mmseg.engine.hooks import CheckpointCheckHook, PrototypeStartHook
from omh_mmseg.engine.refit import refit_model, shares_of
from omh_mmseg.models.decode_heads import MomentumPrototypes
from omh_mmseg.models.utils.loaded_weights import fill_model, start
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs


@pytest.fixture
def build(tiny_vit: dict, host_parts: Callable[[str], dict]) -> Callable[..., nn.Module]:
    """``build(omh=dict(...), **parts)``."""

    def make(omh: dict[str, Any] | None = None, **parts: Any) -> nn.Module:
        config = dict(
            type='PriMaPs', num_classes=4, backbone=dict(type='FrozenBackbone', backbone=copy.deepcopy(tiny_vit)),
            decode_head=dict(type='IdentityHead'), linear_probe=dict(type='LinearProbe'),
            omh_head=None if omh is None else dict(type='OMHHead', **omh), **host_parts('PriMaPs'),
        )  # fmt: skip
        model = MODELS.build({**config, **parts})
        model.init_weights()
        return model

    return make


JOINT = dict(centres=dict(type='JointCentres'), reach=dict(type='FixedWeight', begin=0))


@pytest.mark.parametrize('omh', [dict(), dict(match=None, cluster=dict()), JOINT | dict(reach=dict(begin=0))])
def test_losses_that_reach_nothing_are_refused(build, omh) -> None:
    with pytest.raises(ValueError, match='frozen here: set omh_head.match=None and cluster=None, or let them move'):
        build(omh)


@pytest.mark.parametrize('omh', [JOINT, dict(match=None), dict(match=None, centres=dict(type='MomentumCentres'))])
def test_level_1_follows_the_momentum_prototypes(build, omh) -> None:
    model = build(omh).train()
    model.loss(torch.randn(2, 3, 32, 32), [SegDataSample(), SegDataSample()])
    assert torch.equal(model.omh_head.centres[0], model.cluster_probe.centres)
    assert not model.omh_head.centres[0].requires_grad


@pytest.mark.parametrize('where', ['autocast', 'backbone'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(build, tiny_vit, where, dtype) -> None:
    """Proposals, classes and the loss are computed in float32 whatever the features come in."""
    frozen = dict(type='FrozenBackbone', backbone=copy.deepcopy(tiny_vit))
    if where == 'backbone':
        frozen['precision'] = str(dtype).removeprefix('torch.')
    model = build(backbone=frozen).train()
    with torch.autocast('cpu', dtype, enabled=where == 'autocast'):
        losses = model.loss(torch.randn(2, 3, 32, 32), [SegDataSample(), SegDataSample()])
    assert losses['loss_prototypes'].dtype == torch.float32
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(value.isfinite() for value in losses.values())
    for learned in (model.cluster_probe.directions, model.cluster_probe.gains):
        assert learned.grad.isfinite().all() and learned.grad.abs().sum() > 0


def test_prototypes_need_a_start(build) -> None:
    model = build().train()
    with pytest.raises(ValueError, match='the prototypes are random: put .*PrototypeStartHook.* in load_from'):
        CheckpointCheckHook().before_train_epoch(SimpleNamespace(model=model))
    model.cluster_probe.start(torch.randn(4, 24))
    CheckpointCheckHook().before_train_epoch(SimpleNamespace(model=model))


def test_one_level_would_follow_and_nothing_learn(build) -> None:
    with pytest.raises(ValueError, match='with one level no centre learns.*share_prototypes=False'):
        build(dict(match=None, num_levels=1))
    assert build(dict(match=None, num_levels=1), share_prototypes=False).omh_head.level_sizes == [4]
    with pytest.raises(ValueError, match='share_prototypes=False reaches nothing without an omh_head'):
        build(share_prototypes=False)


def test_of_more_prototypes_than_numbers_of_proposals_none_stands_for_none(build, host_parts) -> None:
    probe = host_parts('PriMaPs')['cluster_probe'] | dict(extra_clusters=260)
    model = build(cluster_probe=probe).train()
    proposals = torch.full((1, 32, 32), 255, dtype=torch.uint8)
    inputs = FrozenInputs(None, (32, 32), dict(proposals=proposals), images=torch.randn(1, 3, 32, 32))
    assert model.loss(inputs, [SegDataSample()])['loss_prototypes'] == 0


def test_what_is_not_finite_shows(build) -> None:
    model = build().train()
    with torch.no_grad():
        for value in model.backbone.parameters():
            value.fill_(torch.nan)
    images, samples = torch.randn(2, 3, 32, 32), [SegDataSample(), SegDataSample()]
    with pytest.raises(FloatingPointError, match='frozen features are not finite'):
        model.loss(images, samples)
    proposals = torch.full((2, 32, 32), 255, dtype=torch.uint8)
    losses = model.loss(FrozenInputs(None, (32, 32), dict(proposals=proposals), images=images), samples)
    assert losses['loss_prototypes'].isnan()


def test_extra_clusters_are_not_shared(build, host_parts) -> None:
    probe = host_parts('PriMaPs')['cluster_probe'] | dict(extra_clusters=2)
    with pytest.raises(ValueError, match='level 1 of OMH has 4 clusters and is to follow 6 prototypes'):
        build(dict(match=None), cluster_probe=probe)
    model = build(dict(match=None), cluster_probe=probe, share_prototypes=False)
    assert model.cluster_bias.sizes['pred_sem_seg'] == 6


def test_gains_count_in_the_prediction(build) -> None:
    model = build(test_cfg=dict(linear=False)).eval()
    probe = model.cluster_probe
    with torch.no_grad():
        probe.gains.copy_(torch.tensor([0.1, 3.0, 1.0, 1.0]))
        probe.update()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        (sample,) = model.predict(images)
        expected = model.encode_decode(images).argmax(1)
        units = F.normalize(probe.centres, dim=1)[..., None, None]
        cosines = F.interpolate(F.conv2d(model.encode(images), units), size=32, mode='bilinear')
    assert torch.equal(sample.pred_sem_seg.data, expected)
    assert not torch.equal(cosines.argmax(1), expected)


def test_a_refit_is_by_cosine(build) -> None:
    model = build().eval()
    probe = model.cluster_probe
    with torch.no_grad():
        probe.gains.copy_(torch.tensor([0.1, 3.0, 1.0, 1.0]))
        probe.update()
    codes = F.normalize(torch.randn(200, probe.centres.shape[1]), dim=1)
    shares = shares_of(model, codes, 'pred_sem_seg').shares
    assert torch.equal(shares * 200, torch.bincount((codes @ probe.centres.t()).argmax(1), minlength=4).double())
    found = refit_model(model, codes, ['pred_sem_seg'], delta=0.0)['pred_sem_seg']
    torch.testing.assert_close(probe.centres.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(shares_of(model, codes, 'pred_sem_seg').shares, found.shares)


def test_a_new_run_keeps_what_was_learned(build) -> None:
    model = build().train()
    for _ in range(3):
        model.cluster_probe.update()
    centres = model.cluster_probe.centres.clone()
    model.begin_run()
    assert int(model.cluster_probe.updates) == 0 and torch.equal(model.cluster_probe.centres, centres)


def test_it_begins_from_the_centres_of_another_host(build, tiny_stego, tiny_vit) -> None:
    """Whose head it keeps frozen, without its dropout."""
    other = tiny_stego(omh_head=None)
    model = build(decode_head=dict(type='ProjectionHead', channels=10))
    state = other.state_dict()
    fill_model(model, state, start())
    assert bool(model.cluster_probe.started)
    assert torch.equal(model.cluster_probe.directions, other.cluster_probe.centres)
    model.train()
    assert not model.decode_head.training and not any(p.requires_grad for p in model.decode_head.parameters())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.encode(images), other.eval().encode(images))
    assert model.loss(images, [SegDataSample(), SegDataSample()])['loss_prototypes'] > 0


def runner_of(model: nn.Module, count: int = 6, iteration: int = 0) -> SimpleNamespace:
    """What the hook asks of a runner, with images on demand."""
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> torch.Tensor:
            return images[int(index)]

    def together(items: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(inputs=torch.stack(items))

    loader = torch.utils.data.DataLoader(Images(), batch_size=3, collate_fn=together)
    model.data_preprocessor = lambda batch, training: batch
    wrapper = SimpleNamespace(optim_context=lambda _: torch.enable_grad())
    return SimpleNamespace(
        model=model, train_dataloader=loader, iter=iteration, seed=0, optim_wrapper=wrapper, _load_from=None,
        logger=SimpleNamespace(info=print),
    )


class Bare(nn.Module):
    """A model as the hook sees it."""

    def __init__(self, head: nn.Module, clusters: int = 3) -> None:
        super().__init__()
        self.decode_head, self.cluster_probe = head, MomentumPrototypes(4, clusters)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images[..., :8, :8], images[:, :1, 8:16, :8]], 1) * torch.tensor([3.0, 1, 2, 1]).view(4, 1, 1)


def test_the_start() -> None:
    """Principal directions, then k-means; the same however often, and once alone."""
    probes = []
    for epochs in (0, 2, 2):
        torch.manual_seed(epochs)
        model = Bare(nn.Identity())
        hook = PrototypeStartHook(epochs=epochs)
        hook.before_train(runner_of(model))
        probes.append(model.cluster_probe)
    assert all(bool(probe.started) for probe in probes)
    assert torch.equal(probes[1].directions, probes[2].directions)
    assert not torch.equal(probes[0].directions, probes[1].directions)
    assert torch.equal(probes[1].centres, F.normalize(probes[1].directions, dim=1))
    torch.testing.assert_close(probes[0].directions @ probes[0].directions.t(), torch.eye(3))
    assert probes[0].directions[0].argmax() == 0
    started = probes[1].directions.clone()
    hook.before_train(runner_of(model))
    assert torch.equal(model.cluster_probe.directions, started)


@pytest.mark.parametrize(
    ('model', 'count', 'error', 'message'),
    [
        (Bare(nn.Linear(2, 2)), 6, ValueError, 'nobody has trained it: name the checkpoint of the host'),
        (Bare(nn.Identity(), clusters=5), 6, ValueError, '5 prototypes cannot begin at as many principal'),
        (Bare(nn.Identity()), 2, ValueError, 'train set of 2 images is smaller than a batch'),
        (SimpleNamespace(cluster_probe=nn.Identity()), 6, TypeError, 'starts MomentumPrototypes, not a Identity'),
    ],
    ids=['head', 'clusters', 'images', 'probe'],
)
def test_what_the_start_refuses(model, count, error, message) -> None:
    with pytest.raises(error, match=message):
        PrototypeStartHook().before_train(runner_of(model, count))
