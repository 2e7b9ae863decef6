"""HP's local hidden positives: the reference's arrays, docs/methods/test_vectors.md A.10, and the masks written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.losses.local_positives import feature_affinity, grid_neighbours, mix_neighbours, neighbour_weights


def written_out(code: Tensor, affinity: Tensor, scale: float = 28.0) -> Tensor:
    """docs/methods/hp.md 3B.6 with all pairs of positions."""
    batch, channels, height, width = code.shape
    size = height * width
    lower, upper = (torch.quantile(affinity, q, dim=2, keepdim=True) for q in (0.1, 0.9))
    weights = scale * torch.softmax(torch.minimum(torch.maximum(affinity, lower), upper), 2)
    weights = torch.where(weights < weights.mean(2, keepdim=True), 0, weights)
    mixed = torch.zeros(batch, channels, size, dtype=code.dtype)
    for p in range(size):
        neighbours = [
            q for q in range(size) if abs(q // width - p // width) <= 1 and abs(q % width - p % width) <= 1
        ]  # fmt: skip
        for q in neighbours:
            mixed[:, :, p] += weights[:, p, q, None] * code.flatten(2)[:, :, q] / len(neighbours)
    return mixed.unflatten(2, (height, width))


@pytest.mark.golden
def test_golden(golden):
    arrays = {name: torch.tensor(value) for name, value in golden('hp_local').items()}
    attention = arrays['attn'].mean(1)[:, 1:, 1:]
    mixed = mix_neighbours(arrays['code'], neighbour_weights(attention, (5, 5)))
    torch.testing.assert_close(mixed, arrays['code_mix'], rtol=1e-5, atol=1e-6)


def test_a10_neighbour_counts():
    _, exists = grid_neighbours((28, 28))
    values, counts = exists.sum(1).unique(return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist())) == {4: 4, 6: 104, 9: 676}


@pytest.mark.parametrize('grid', [(5, 5), (4, 7), (1, 6), (3, 1), (2, 2)])
@pytest.mark.parametrize('chunk', [1, 2**24])
def test_equals_the_masks_written_out(grid, chunk):
    size = grid[0] * grid[1]
    affinity = torch.softmax(3 * torch.randn(3, size, size, dtype=torch.float64), 2)
    code = torch.randn(3, 4, *grid, dtype=torch.float64)
    weights = neighbour_weights(affinity, grid, scale=11.0, chunk_elements=chunk)
    torch.testing.assert_close(mix_neighbours(code, weights), written_out(code, affinity, 11.0))


def test_weights_are_those_of_the_neighbours_in_reading_order():
    affinity = torch.zeros(1, 9, 9)
    affinity[0, 4] = torch.tensor([0.0, 1, 0, 1, 1, 0, 0, 0, 1])
    weights = neighbour_weights(affinity, (3, 3))[0, :, 1, 1]
    assert (weights > 0).tolist() == [False, True, False, True, True, False, False, False, True]


def test_attention_is_nearly_even_after_the_clipping():
    """docs/methods/hp.md 3B.6: what remains is about 28 / 784."""
    attention = torch.softmax(torch.randn(1, 784, 784), 2)
    weights = neighbour_weights(attention, (28, 28))
    kept = weights[weights > 0]
    assert 0.0357 < float(kept.min()) and float(kept.max()) < 0.0359


def test_gradient_flows_to_the_code_alone():
    code = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    affinity = torch.randn(2, 12, 12, dtype=torch.float64, requires_grad=True)
    weights = neighbour_weights(affinity, (3, 4))
    assert not weights.requires_grad
    assert torch.autograd.gradcheck(lambda code: mix_neighbours(code, weights), code)


def test_feature_affinity_is_the_cosine():
    features = torch.randn(2, 5, 3, 4)
    affinity = feature_affinity(features)
    rows = features.flatten(2).transpose(1, 2)
    expected = F.cosine_similarity(rows[:, :, None], rows[:, None], dim=3)
    torch.testing.assert_close(affinity, expected)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert feature_affinity(features.bfloat16()).dtype == torch.float32


def test_errors():
    with pytest.raises(ValueError, match=r'3 x 4 grid is \(B, 12, 12\); got \(2, 13, 13\).*without its extra tokens'):
        neighbour_weights(torch.zeros(2, 13, 13), (3, 4))
    with pytest.raises(ValueError, match=r'are \(2, 9, 3, 4\); got \(2, 9, 4, 3\)'):
        mix_neighbours(torch.zeros(2, 5, 3, 4), torch.zeros(2, 9, 4, 3))


def test_a_weight_that_equals_the_mean_stays():
    """docs/methods/hp.md 3B.6 removes what is below the mean: of an even row, nothing."""
    weights = neighbour_weights(torch.zeros(1, 16, 16), (4, 4), scale=16.0)
    _, exists = grid_neighbours((4, 4))
    assert torch.equal(weights[0].flatten(1).t(), exists.float())
