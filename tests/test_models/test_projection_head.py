from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omh_mmseg.models.decode_heads import ProjectionHead
from omh_mmseg.registry import MODELS


@pytest.mark.parametrize(('activation', 'function'), [('ReLU', F.relu), ('SiLU', F.silu)])
def test_code_is_the_sum_of_two_branches(activation, function):
    head = MODELS.build(dict(type='ProjectionHead', in_channels=7, channels=4, act_cfg=dict(type=activation)))
    head.eval()
    features = torch.randn(2, 7, 3, 5)
    rows = features.movedim(1, -1)

    def dense(layer: torch.nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ layer.weight[:, :, 0, 0].t() + layer.bias

    hidden, last = head.nonlinear[0], head.nonlinear[2]
    expected = dense(head.linear, rows) + dense(last, function(dense(hidden, rows)))
    torch.testing.assert_close(head(features), expected.movedim(-1, 1))
    assert hidden.weight.shape == (7, 7, 1, 1)


def test_relu_is_the_default():
    assert isinstance(ProjectionHead(7, 4).nonlinear[1], torch.nn.ReLU)


def test_linear_only():
    head = ProjectionHead(7, 4, nonlinear=False).eval()
    features = torch.randn(2, 7, 3, 5)
    assert len(list(head.parameters())) == 2
    torch.testing.assert_close(head(features), head.linear(features))


def test_eval_is_deterministic_and_drops_nothing():
    head = ProjectionHead(7, 4, dropout_ratio=0.5).eval()
    features = torch.randn(2, 7, 3, 5)
    assert torch.equal(head(features), head(features))
    assert torch.equal(head.drop(features), features)


def test_dropout_takes_whole_channels_and_rescales():
    head = ProjectionHead(400, 4, dropout_ratio=0.25)
    dropped = head.drop(torch.ones(2, 400, 3, 5)).flatten(2)
    assert (dropped == dropped[:, :, :1]).all()
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (dropped[:, :, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.06)


def test_each_use_draws_its_own_mask():
    head, seen = ProjectionHead(64, 4, dropout_ratio=0.5), []
    head.linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head.nonlinear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = torch.ones(2, 64, 2, 2)
    head(features)
    seen.append(head.drop(features))
    assert [dropped.unique().tolist() for dropped in seen] == [[0.0, 2.0]] * 3
    for first, second in zip(seen, seen[1:] + seen[:1]):
        assert (first > second).any() and (second > first).any()


def test_initial_weights_are_the_frameworks_default():
    """docs/methods/features.md 2.1: Kaiming-uniform with a = sqrt 5, that is uniform in +-1 / sqrt(fan in), biases
    likewise.
    """
    head = ProjectionHead(400, 50)
    head.init_weights()
    for layer in (head.linear, head.nonlinear[0], head.nonlinear[2]):
        for values in (layer.weight.detach().flatten(), layer.bias.detach()):
            scaled = values * 20
            assert scaled.abs().max() <= 1 and scaled.std().item() == pytest.approx(3**-0.5, abs=0.15)
            assert scaled.max() > 0.9 and scaled.min() < -0.9


def test_no_layer_but_dropout_behaves_differently_in_training():
    head = ProjectionHead(7, 4)
    head.dropout.p = 0.0
    features = torch.randn(2, 7, 3, 5)
    assert torch.equal(head.train()(features), head.eval()(features))
    assert not list(head.buffers())


def test_mmseg_finds_the_number_of_classes():
    assert MODELS.build(dict(type='ProjectionHead', in_channels=7, channels=4, num_classes=9)).num_classes == 9


def test_gradient_reaches_every_parameter():
    head = ProjectionHead(7, 4)
    head(torch.randn(2, 7, 3, 5)).square().sum().backward()
    assert all(parameter.grad.norm() > 0 for parameter in head.parameters())
