"""PriMaPs' prototypes, their start and their loss against the numbers of its authors' functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.decode_heads import ClusterProbe, LinearProbe, MomentumPrototypes
from omh_mmseg.models.decode_heads.prototype_start import cosine_k_means, principal_directions
from omh_mmseg.models.losses import ClassFrequencyLoss
from omh_mmseg.models.losses.cluster_loss import cluster_loss
from omh_mmseg.models.losses.upsampled_cross_entropy import upsampled_cross_entropy
from omh_mmseg.models.prediction.upsampling import Upsampling, arg_max
from omh_mmseg.models.utils.mask_proposals import assign_proposals
from omh_mmseg.models.utils.similarity import code_similarity

TIGHT = dict(rtol=1e-5, atol=1e-6)
GRADIENT = dict(rtol=1e-4, atol=1e-7)


@pytest.fixture
def arrays(golden: Callable[[str], dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """All arrays, on torch."""
    return {key: torch.from_numpy(np.array(value)) for key, value in golden('primaps').items()}


def prototypes_of(a: dict[str, Tensor]) -> MomentumPrototypes:
    """Those before the step of the golden arrays."""
    directions, gains = a['step/seghead_v'].flatten(1), a['step/seghead_g'].flatten()
    probe = MomentumPrototypes(directions.shape[1], len(directions))
    with torch.no_grad():
        probe.directions.copy_(a['step/ema_v'].flatten(1))
        probe.gains.copy_(a['step/ema_g'].flatten())
        probe._copy()
        probe.directions.copy_(directions)
        probe.gains.copy_(gains)
    return probe


def test_a_step_of_expectation_maximisation(arrays: dict[str, Tensor]) -> None:
    a = arrays
    probe, loss = prototypes_of(a), ClassFrequencyLoss()
    proposals = a['step/proposals'][:, 0]
    size = proposals.shape[-2:]

    def resize(maps: Tensor) -> Tensor:
        return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)

    classes = torch.cat([arg_max(one, Upsampling.to(size)) for one in probe(a['step/feats']).split(1)])
    targets = assign_proposals(classes, proposals, len(probe.directions))
    # 255 is a class where there are more of them, and -1 none.
    assert torch.equal(torch.where(targets < 0, 255, targets), a['step/pseudo'].long())
    logits = probe.running(a['step/feats_aug'])
    every = a['step/seghead_logits_sub'].shape[-1]
    chosen = resize(logits)[..., :: size[0] // every, :: size[1] // every]
    torch.testing.assert_close(chosen, a['step/seghead_logits_sub'], **TIGHT)
    torch.testing.assert_close(loss.weights(logits.detach(), targets), a['step/focal_weight'].flatten(), **TIGHT)
    value = loss(logits, targets)
    torch.testing.assert_close(value, a['step/seghead_loss'], **TIGHT)
    optimizer = torch.optim.Adam([probe.directions, probe.gains], lr=5e-3)
    value.backward()
    torch.testing.assert_close(probe.directions.grad, a['step/grad_v'].flatten(1), **GRADIENT)
    torch.testing.assert_close(probe.gains.grad, a['step/grad_g'].flatten(), **GRADIENT)
    optimizer.step()
    torch.testing.assert_close(probe.directions.detach(), a['step/seghead_v_after'].flatten(1), **TIGHT)
    torch.testing.assert_close(probe.gains.detach(), a['step/seghead_g_after'].flatten(), **TIGHT)


def test_the_linear_probe_counts_all_pixels(arrays: dict[str, Tensor]) -> None:
    a = arrays
    classes, channels = a['step/linear_w'].shape[:2]
    probe = LinearProbe(channels, classes, over_all=True)
    probe.classifier.load_state_dict(dict(weight=a['step/linear_w'], bias=a['step/linear_b']))
    loss = probe.loss(a['step/feats'], a['step/label'][:, 0].long())['loss_linear_probe']
    torch.testing.assert_close(loss, a['step/linear_loss'], **TIGHT)
    loss.backward()
    torch.testing.assert_close(probe.classifier.weight.grad, a['step/grad_linear_w'], **GRADIENT)
    torch.testing.assert_close(probe.classifier.bias.grad, a['step/grad_linear_b'], **GRADIENT)


def test_the_focal_weights_alone(arrays: dict[str, Tensor]) -> None:
    logits = arrays['focal/logits'].requires_grad_()
    loss = ClassFrequencyLoss()(logits, arrays['focal/target'])
    torch.testing.assert_close(loss, arrays['focal/loss'], **TIGHT)
    loss.backward()
    torch.testing.assert_close(logits.grad, arrays['focal/grad'], **GRADIENT)


def test_the_start_by_k_means(arrays: dict[str, Tensor]) -> None:
    a = arrays
    start, feats = a['base/weight_v'].flatten(1), a['base/feats']
    torch.testing.assert_close(code_similarity(feats, start), a['base/logits'], **TIGHT)
    loss = cluster_loss(code_similarity(feats.double(), start.double()))
    torch.testing.assert_close(loss, a['base/loss'], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        cosine_k_means(start, [feats], lr=5e-3), a['base/weight_v_after_adam'].flatten(1), **TIGHT
    )
    given = a['pcainit/V'].t()
    found = principal_directions(feats.split(1), len(given)).float()
    assert ((found * given).sum(1).abs() - 1).abs().max() < 1e-4


def test_momentum_updates(arrays: dict[str, Tensor]) -> None:
    a = arrays
    clusters = a['step/seghead_v'].shape[0]
    width = a['ema/online'].shape[1]
    clusters = next(k for k in range(2, width) if width % k == 0)
    channels = width // clusters - 1
    probe = MomentumPrototypes(channels, clusters)
    for online, expected in zip(a['ema/online'], a['ema/ema'], strict=True):
        with torch.no_grad():
            probe.directions.copy_(online[: clusters * channels].view(clusters, channels))
            probe.gains.copy_(online[clusters * channels :])
        probe.update()
        found = torch.cat([probe.average[:, :-1].flatten(), probe.average[:, -1]])
        torch.testing.assert_close(found, expected, **TIGHT)
    assert int(probe.updates) == len(a['ema/online'])


def test_updates_follow_every_tenth_step() -> None:
    probe, due = MomentumPrototypes(3, 2, interval=10), []
    for steps in range(45):
        before = int(probe.updates)
        probe.follow(steps)
        if int(probe.updates) > before:
            due.append(steps - 1)
    assert due == [10, 20, 30, 40]


@pytest.mark.parametrize('weighted', [False, True])
def test_gradients(weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(-1, 3, (2, 7, 5), generator=generator)
    weights = torch.rand(3, dtype=torch.float64, generator=generator) if weighted else None

    def loss(values: Tensor) -> Tensor:
        return upsampled_cross_entropy(values, labels, class_weights=weights, over_all=weighted)

    assert torch.autograd.gradcheck(loss, logits)
    probe = MomentumPrototypes(4, 3).double()
    code = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=generator)

    def through(directions: Tensor, gains: Tensor) -> Tensor:
        values = {'probe.directions': directions, 'probe.gains': gains}
        return torch.func.functional_call(_Running(probe), values, (code,))

    assert torch.autograd.gradcheck(through, (probe.directions, probe.gains))


class _Running(torch.nn.Module):
    def __init__(self, probe: MomentumPrototypes) -> None:
        super().__init__()
        self.probe = probe

    def forward(self, code: Tensor) -> Tensor:
        return self.probe.running(code)


def test_float64_agrees_with_the_formula() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 5, (2, 9, 8), generator=generator)
    full = F.interpolate(logits, size=(9, 8), mode='bilinear', align_corners=False)
    valid = targets < 4
    share = full.softmax(1).mean((0, 2, 3))
    terms = F.cross_entropy(full, torch.where(valid, targets, 0), reduction='none')
    expected = ((1 - share)[torch.where(valid, targets, 0)] ** 2 * terms * valid).mean()
    assert abs(float(ClassFrequencyLoss()(logits, targets) - expected)) < 1e-9


def test_centres_of_another_host_become_prototypes() -> None:
    other, probe = ClusterProbe(5, 3), MomentumPrototypes(5, 3)
    probe.load_state_dict(other.state_dict())
    assert bool(probe.started) and torch.equal(probe.directions, other.centres)
    code = torch.randn(1, 5, 2, 2)
    torch.testing.assert_close(probe(code), code.norm(dim=1, keepdim=True) * other(code))
    copy = MomentumPrototypes(5, 3)
    copy.load_state_dict(probe.state_dict())
    assert torch.equal(copy.centres, probe.centres) and bool(copy.started)


def test_bfloat16_codes_are_widened() -> None:
    probe = MomentumPrototypes(5, 3)
    code = torch.randn(1, 5, 2, 2, dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        assert probe(code).dtype == probe.running(code).dtype == torch.float32
        assert ClassFrequencyLoss()(probe.running(code), torch.zeros(1, 4, 4, dtype=torch.long)).dtype == torch.float32


def test_a_new_run_goes_on_from_a_refit_and_a_resumed_one_from_before() -> None:
    """A resumed run gets the centres of its training back, whose average must be there still."""
    probe, again = (MomentumPrototypes(4, 3) for _ in range(2))
    probe.start(torch.randn(3, 4))
    trained = probe.average.clone()
    probe.centres.copy_(torch.nn.functional.normalize(torch.randn(3, 4), dim=1))
    again.load_state_dict(probe.state_dict())
    assert torch.equal(again.average, trained)
    refitted = again.centres.clone()
    again.begin_run()
    assert torch.equal(again.average[:, :-1], refitted)
    again.updates.fill_(100)
    again.update()
    torch.testing.assert_close(again.average[:, :-1], 0.98 * refitted + 0.02 * again.directions.detach())


def test_momentum_that_never_acts_is_named() -> None:
    assert MomentumPrototypes(3, 2, interval=10).first_steps == {'model.cluster_probe.interval': 11}
