from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omh_mmseg.models.decode_heads import LinearProbe
from omh_mmseg.models.losses.upsampled_cross_entropy import upsampled_cross_entropy


def plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The definition, in float64."""
    upsampled = F.interpolate(logits.double(), size=labels.shape[-2:], mode='bilinear', align_corners=False)
    valid = (labels >= 0) & (labels < logits.shape[1])
    targets = torch.where(valid, labels.long(), -1)
    return F.cross_entropy(upsampled, targets, ignore_index=-1, reduction='sum') / valid.sum().clamp_min(1)


def value_and_slope(loss: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize('scale', [1.0, 30.0, 1000.0])
@pytest.mark.parametrize('size', [(13, 18), (5, 7), (4, 5), (2, 3), (1, 40)])
@pytest.mark.parametrize('chunk', [1, 200, None])
def test_value_and_gradient_are_those_of_the_definition(scale, size, chunk):
    """Enlarged, kept and reduced; classes so far apart that exponentials underflow; rows together or one by one."""
    logits = (scale * torch.randn(3, 6, 4, 5)).requires_grad_()
    labels = torch.randint(-1, 8, (3, *size))
    labels[1] = 255
    loss, slope = value_and_slope(upsampled_cross_entropy(logits, labels, chunk_elements=chunk), logits)
    expected, expected_slope = value_and_slope(plain(logits, labels), logits)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    # Interpolated logits are rounded relative to the largest.
    torch.testing.assert_close(slope, expected_slope, rtol=1e-4, atol=1e-6 + 1e-6 * scale)


def test_gradient_of_float64():
    labels = torch.randint(0, 4, (2, 7, 9), dtype=torch.uint8)
    labels[0, 3] = 255
    logits = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 2, 5])
    assert torch.autograd.gradcheck(lambda one: 3 * upsampled_cross_entropy(one, labels, chunk_elements=40), logits)
    assert torch.autograd.gradcheck(lambda one: upsampled_cross_entropy(one, labels, rows), logits)


def test_some_rows_are_the_loss_of_these_pixels():
    logits, labels = torch.randn(2, 5, 3, 3), torch.randint(0, 5, (2, 12, 8))
    others = labels.clone()
    others[:, [0, 2, 3, 5, 6, 7, 8, 9, 10]] = 255
    some = upsampled_cross_entropy(logits, labels, torch.tensor([1, 4, 11]))
    torch.testing.assert_close(some, plain(logits, others).float())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    logits, labels = torch.randn(1, 5, 3, 3), torch.randint(0, 5, (1, 12, 8))
    expected = upsampled_cross_entropy(logits, labels)
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(upsampled_cross_entropy(logits, labels), expected)


def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        loss = upsampled_cross_entropy(torch.randn(1, 5, 3, 3, requires_grad=True), torch.zeros(1, 6, 6).long())
    assert not loss.requires_grad and loss > 0


def test_rows_of_a_probe_are_drawn_anew_and_estimate_the_loss():
    code, labels = torch.randn(2, 6, 4, 4), torch.randint(0, 3, (2, 40, 10))
    probe, whole = LinearProbe(6, 3, row_share=0.1), LinearProbe(6, 3)
    whole.load_state_dict(probe.state_dict())
    state = torch.random.get_rng_state()
    first = probe.loss(code, labels)['loss_linear_probe']
    assert torch.equal(torch.random.get_rng_state(), state)
    rows = []
    for step in range(200):
        torch.manual_seed(step)
        rows.append(probe._drawn_rows(40, labels.device))
    assert all(len(one) == 4 and torch.equal(one // 10, torch.arange(4)) for one in rows)
    assert torch.stack(rows).unique().numel() == 40
    taken = [upsampled_cross_entropy(probe(code), labels, one) for one in rows]
    expected = whole.loss(code, labels)['loss_linear_probe']
    torch.testing.assert_close(torch.stack(taken).mean(), expected, rtol=0.02, atol=0)
    assert first != expected
