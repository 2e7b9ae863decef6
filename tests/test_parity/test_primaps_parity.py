"""PriMaPs against its straight-line form: proposals, losses and prototypes over several steps."""

from __future__ import annotations

import pytest
import straight_line_primaps as straight
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from omh_mmseg.models.prediction.mask_proposals import MaskProposals
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs

CLASSES, CHANNELS, SIDE = 5, 12, 48


@MODELS.register_module()
class Blocks(nn.Module):
    """A backbone: means of blocks of 8 pixels through a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('matrix', torch.randn(CHANNELS, 3, 1, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(F.avg_pool2d(images, 8), self.matrix).tanh() + 0.5


def build(**options) -> nn.Module:
    return MODELS.build(
        dict(
            type='PriMaPs', num_classes=CLASSES, decode_head=dict(type='IdentityHead'),
            backbone=dict(type='FrozenBackbone', backbone=dict(type='Blocks')),
            data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True),
            cluster_probe=dict(type='MomentumPrototypes', interval=2),
            linear_probe=dict(type='LinearProbe', over_all=True),
            prototype_loss=dict(type='ClassFrequencyLoss'), proposals=dict(type='MaskProposals', crf=None), **options,
        )
    )  # fmt: skip


def pictures(count: int = 3) -> Tensor:
    """Coarse patterns with noise, normalised."""
    coarse = torch.randn(count, 3, 4, 4)
    return F.interpolate(coarse, size=(SIDE, SIDE), mode='nearest') + 0.2 * torch.randn(count, 3, SIDE, SIDE)


def test_proposals() -> None:
    for features in (Blocks()(pictures(4)), torch.randn(2, CHANNELS, 6, 6)):
        found = MaskProposals(0.4, crf=None)(features, (SIDE, SIDE))
        for one, ours in zip(features, found):
            assert torch.equal(straight.proposals(one, 0.4, (SIDE, SIDE)), ours.long())


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_steps(flip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses to 1e-5, and the prototypes after every step: the flip is turned back, and changes no mean."""
    model = build(flip_prob=flip).train()
    monkeypatch.setattr(model, 'jittered', lambda images: images * 0.9)
    probe = model.cluster_probe
    directions, gains = (value.detach().clone().requires_grad_() for value in (probe.directions, probe.gains))
    momentum, updates = (directions.detach().clone(), gains.detach().clone()), 0
    ours = torch.optim.Adam([probe.directions, probe.gains], 5e-3)
    theirs = torch.optim.Adam([directions, gains], 5e-3)
    for number in range(9):
        images = pictures()
        losses = model.loss(images, [SegDataSample()] * len(images))
        turned = images.flip(-1) if flip else images
        with torch.no_grad():
            features, student = model.backbone(turned), model.backbone(turned * 0.9)
        ids = torch.stack([straight.proposals(one, 0.4, (SIDE, SIDE)) for one in model.backbone(images)])
        ids = ids.flip(-1) if flip else ids
        expected = straight.step(features, student, ids, (directions, gains), momentum)
        torch.testing.assert_close(losses['loss_prototypes'], expected, rtol=1e-5, atol=1e-6)
        for optimizer, loss in ((ours, losses['loss_prototypes']), (theirs, expected)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(probe.directions, directions, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(probe.gains, gains, rtol=1e-5, atol=1e-5)
        if number > 0 and number % 2 == 0:
            updates += 1
            share = 0.0 if updates <= 2 else 1 - 1 / updates
            momentum = tuple(
                share * old + (1 - share) * new.detach() for old, new in zip(momentum, (directions, gains))
            )
    assert updates == 4


def test_cached_inputs_take_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = build().train(), pictures()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 6, (1, SIDE, SIDE)))) for _ in images]
    with torch.no_grad():
        frozen = model.freeze(images)
        frozen.images, frozen.mirrored = images, model.backbone(images.flip(-1))
    alone = FrozenInputs(None, frozen.size, images=images, extras=frozen.extras)
    values = []
    for inputs in (images, frozen, alone):
        torch.manual_seed(3)
        model.iteration.zero_()
        values.append(model.loss(inputs, samples))
    for other in values[1:]:
        for name, value in values[0].items():
            torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)
