"""What the hosts share: the order of a training step, and where its steps are counted from."""

from __future__ import annotations

import pytest
import torch
from mmseg.structures import SegDataSample

from omh_mmseg.registry import MODELS


def pairs(count: int = 3) -> dict[str, torch.Tensor]:
    return dict(anchor=torch.randn(count, 3, 32, 32), neighbour=torch.randn(count, 3, 32, 32))


def test_after_losses_follows_all_losses(tiny_stego, monkeypatch):
    model, calls = tiny_stego(), []
    for part in (model.cluster_probe, model.linear_probe, model.omh_head):
        loss = part.loss
        monkeypatch.setattr(
            part, 'loss', lambda *given, part=part, loss=loss: calls.append(type(part).__name__) or loss(*given)
        )
    monkeypatch.setattr(model, 'after_losses', lambda: calls.append(model.step))
    for step in range(2):
        calls.clear()
        model.loss(pairs(), [SegDataSample() for _ in range(3)])
        assert calls == ['ClusterProbe', 'LinearProbe', 'OMHHead', step]
    assert model.step == 2


def test_parts_of_a_host_step(tiny_stego):
    losses, codes, code = step = tiny_stego().host_losses(pairs())
    assert step.codes is codes and codes.shape == (6, 10, 4, 4) and torch.equal(code, codes[:3])
    assert list(losses) == ['loss_self', 'loss_knn', 'loss_rand'] and step.losses is losses


def test_a_new_run_forgets_the_run_of_its_weights(tiny_stego):
    """Steps, OMH's warm start and pool, and classes that a validation found; nothing that was learned."""
    head = dict(type='OMHHead', plan=dict(marginal='activation'), reach=dict(begin=2))
    model = tiny_stego(omh_head=head, test_cfg=dict(assignment=dict(pred_level1=[3, 2, 1, 0])))
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    images, samples = pairs(), [SegDataSample() for _ in range(3)]
    for _ in range(3):
        model.loss(images, samples)
    model.assignment.set('pred_sem_seg', [0, 1, 2, 3])
    learned = {key: value.clone() for key, value in model.state_dict().items()}
    forgotten = {key for key in fresh if not torch.equal(learned[key], fresh[key])}
    assert {'iteration', 'assignment.pred_sem_seg', 'omh_head.rule.start.pool', 'omh_head.plan.marginal_0'} < forgotten
    model.begin_run()
    assert model.step == 0 and model.assignment.known == ['pred_level1']
    present = model.state_dict()
    assert present.keys() - fresh.keys() == {'linear_probe.unlabelled'}
    for key, value in fresh.items():
        centres = key.startswith('omh_head.centres.')
        assert torch.equal(present[key], learned[key] if centres else value), key


def test_losses_that_would_reach_nothing_are_refused(tiny_stego):
    """A head without parameters, and clusters that another host trains or that have nothing to train by."""
    with pytest.raises(ValueError, match='losses of STEGO teach the code, and .*IdentityHead has nothing to learn'):
        tiny_stego(decode_head=dict(type='IdentityHead'))
    for probe, host in (('MomentumPrototypes', 'PriMaPs'), ('PrototypeHead', 'SmooSeg')):
        with pytest.raises(ValueError, match=f'nothing of STEGO trains a {probe}, which learns from {host}'):
            tiny_stego(cluster_probe=dict(type=probe))


@pytest.mark.parametrize(
    ('host', 'message'),
    [('PriMaPs', 'running and no follow'), ('SmooSeg', 'assignments and no update_teacher')],
)
def test_a_cluster_probe_that_a_host_cannot_train(tiny_vit, host_parts, host, message):
    head = dict(type='IdentityHead') if host == 'PriMaPs' else dict(type='ProjectionHead', channels=8)
    with pytest.raises(ValueError, match=f'{host} cannot train the clusters of a ClusterProbe, which has no {message}'):
        MODELS.build(
            dict(
                type=host, num_classes=4, backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
                decode_head=head, **host_parts(host) | dict(cluster_probe=dict(type='ClusterProbe')),
            )
        )  # fmt: skip
