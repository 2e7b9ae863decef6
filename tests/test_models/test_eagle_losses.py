"""EAGLE's cue, correspondence and contrast against the reference's arrays, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.evaluation.scores import hungarian_assignment, scores_from_confusion, without_extra_clusters
from omh_mmseg.models.decode_heads import ClusterProbe
from omh_mmseg.models.losses import AdaptiveCorrespondenceLoss, EigenCue, ObjectContrastLoss, eigen_cue
from omh_mmseg.models.losses import object_contrast_loss as contrast
from omh_mmseg.models.utils import eigenvectors
from omh_mmseg.registry import MODELS

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
# docs/methods/eagle.md 4.5
CORRESPONDENCE = dict(
    coco=dict(positive_weight=0.25, negative_weight=0.63),
    cityscapes=dict(positive_weight=0.18, negative_weight=1.0, shift_bias=0.11),
)
SMOOTHING = dict(coco=None, cityscapes=0.1)


def close(value: Tensor, expected: np.ndarray | Tensor, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(value.detach(), expected.reshape(value.shape), rtol=rtol, atol=atol)


def inputs_of(arrays: dict[str, np.ndarray], group: str) -> tuple[Tensor, Tensor]:
    """Codes (B, N, D) and colours (B, 3, h, w) of a group."""
    code, images = torch.tensor(arrays[f'{group}/code']), torch.tensor(arrays[f'{group}/img_u8'])
    side = round(code.shape[1] ** 0.5)
    return code, eigen_cue.small_colours((images / 255 - MEAN) / STD, (side, side))


@pytest.mark.golden
@pytest.mark.parametrize('group', ['eigen', 'eigen28'])
def test_laplacian_and_eigenvectors_equal_the_reference(golden, group):
    """Eigenvectors up to sign, and through both ways to them; eigenvalues as those of float64."""
    arrays = golden('eagle')
    code, colours = inputs_of(arrays, group)
    points = colours.flatten(2).transpose(1, 2)
    matrices = eigen_cue.laplacian(code, points / eigen_cue.COLOUR_SCALE)
    if group == 'eigen':
        close(points.unflatten(1, colours.shape[-2:]), arrays['eigen/img_small'])
        close(matrices[:1], arrays['eigen/laplacian'])
    else:
        close(matrices[0, 0], arrays['eigen28/laplacian_row0'])
    values = torch.tensor(arrays[f'{group}/eigenvalues10'])
    close(torch.linalg.eigvalsh(matrices.double())[:, :10], values, atol=1e-6)
    expected = torch.tensor(arrays[f'{group}/eigenvectors'])
    for vectors in (
        eigenvectors.largest_eigenvectors(torch.eye(matrices.shape[1]) - matrices, expected.shape[-1]),
        torch.linalg.eigh(matrices).eigenvectors[..., : expected.shape[-1]],
    ):
        dots = (vectors * expected).sum(1).abs()
        close(dots, torch.ones_like(dots), atol=1e-5)
    found = EigenCue()(code.transpose(1, 2).unflatten(2, colours.shape[-2:]), colours)
    assert found.shape == (len(code), 3, *colours.shape[-2:])


@pytest.mark.golden
def test_the_sign_rule_equals_the_reference(golden):
    """The stored block is fixed under the rule, and its opposite is brought back."""
    stored = torch.tensor(golden('eagle')['eigen/eigenvectors'])
    cue = EigenCue()
    for signed in (cue.signed(stored), cue.signed(-stored)):
        positive = (signed > 0).float().mean((1, 2))
        assert (positive <= 0.5).all() and torch.equal(signed.abs(), stored.abs())
    close((cue.signed(stored) > 0).float().mean((1, 2)), golden('eagle')['eigen/fraction_positive_after'])
    canonical = EigenCue(sign='canonical')
    assert torch.equal(canonical.signed(stored), canonical.signed(-stored))


@pytest.mark.golden
def test_lookup_equals_the_reference(golden):
    arrays = golden('eagle')
    clusters, x = (torch.tensor(arrays[f'lookup/{name}']) for name in ('clusters', 'x'))
    lookup = ClusterProbe(clusters.shape[1], len(clusters), alpha=1.0)
    lookup.centres.data.copy_(clusters)
    (loss,) = lookup.loss(x).values()
    loss.backward()
    close(loss, arrays['lookup/loss'])
    close(torch.log_softmax(lookup(x), 1), arrays['lookup/logprobs'])
    assert torch.equal(lookup(x).argmax(1), torch.tensor(arrays['lookup/argmax']))
    close(lookup.centres.grad, arrays['lookup/grad_clusters'], 1e-4, 1e-7)


@pytest.mark.golden
@pytest.mark.parametrize('options', [(True, True), (True, False), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize('data', CORRESPONDENCE)
def test_correspondence_equals_the_reference(golden, data, options):
    arrays = golden('eagle')
    features = tuple(torch.tensor(arrays[f'corr/feats{name}']) for name in ('', '_pos', '_pos_aug'))
    names = ('code', 'code_pos', 'code_pos_aug')
    codes = tuple(torch.tensor(arrays[f'corr/{name}']).requires_grad_() for name in names)
    coordinates = tuple(torch.tensor(arrays[f'corr/coords{number}']) for number in (1, 2, 3))
    pointwise, stabilize = options
    loss = AdaptiveCorrespondenceLoss(**CORRESPONDENCE[data], pointwise=pointwise, stabilize=stabilize)
    terms = loss(features, codes, coordinates, torch.tensor(arrays['corr/perms']))
    prefix = f'corr/{data}/pw{pointwise:d}_st{stabilize:d}'
    close(terms['loss_positive'] / loss.positive_weight, arrays[f'{prefix}/pos'])
    close(terms['loss_negative'] / loss.negative_weight, arrays[f'{prefix}/neg'])
    if f'{prefix}/weighted' in arrays:
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        close(total, arrays[f'{prefix}/weighted'])
        for name, code in zip(names, codes):
            close(code.grad, arrays[f'{prefix}/grad_{name}'], 1e-4, 1e-7)


@pytest.mark.golden
@pytest.mark.parametrize('looks', [True, False], ids=['by label', 'all pairs'])
@pytest.mark.parametrize('data', SMOOTHING)
def test_contrast_equals_the_reference(golden, data, looks, monkeypatch):
    """Both ways to the medoids, in chunks."""
    monkeypatch.setattr(contrast, 'may_look_at', lambda _: looks)
    monkeypatch.setattr(contrast, 'CHUNK_ELEMENTS', 200)
    arrays = golden('eagle')
    z, other, labels, features = (torch.tensor(arrays[f'obj/{name}']) for name in ('z', 'z_aug', 'labels', 'feats_kk'))
    weights, labels, count = contrast.patch_weights(features), labels.flatten(), int(labels.max()) + 3
    close(weights, arrays['obj/weights'])
    index, present = contrast.medoids(z, labels, count)
    assert torch.equal(present.nonzero()[:, 0], labels.unique())
    assert torch.equal(index[present], torch.tensor(arrays['obj/medoid_index']))
    for share in (0.7, 0.0, 1.0):
        one, two = z.clone().requires_grad_(), other.clone().requires_grad_()
        loss = ObjectContrastLoss(cross_weight=share, smoothing=SMOOTHING[data], loss_weight=1.0)
        value = loss(one, two, labels, weights, count)
        close(value, arrays[f'obj/{data}/g{share}/loss'])
        if share == 0.7:
            value.backward()
            close(one.grad, arrays[f'obj/{data}/grad_z'], 1e-4, 1e-7)
            close(two.grad, arrays[f'obj/{data}/grad_z_aug'], 1e-4, 1e-7)


@pytest.mark.golden
@pytest.mark.parametrize('case', ['coco32', 'cityscapes28'])
def test_scores_with_extra_clusters_equal_the_reference(golden, case):
    """The published rule, by which pixels of extra clusters do not count; accuracy is that of the matched pixels."""
    arrays = golden('eagle')
    counts = without_extra_clusters(np.asarray(arrays[f'metric/{case}/stats']))
    scores = scores_from_confusion(counts, hungarian_assignment(counts))
    assert scores.pixel_accuracy == pytest.approx(float(arrays[f'metric/{case}/Accuracy']), rel=1e-6)
    assert scores.mean_iou == pytest.approx(float(arrays[f'metric/{case}/mIoU']), rel=1e-6)


@pytest.mark.parametrize('smoothing', [None, 0.2])
def test_gradients_of_the_contrast(smoothing):
    rows, other = (torch.randn(12, 4, dtype=torch.float64) for _ in range(2))
    labels, weights = torch.arange(12) % 3, torch.rand(12, dtype=torch.float64)
    loss = ObjectContrastLoss(temperature=0.5, smoothing=smoothing)

    def of(one: Tensor, two: Tensor) -> Tensor:
        return loss(one, two, labels, weights, 5)

    assert torch.autograd.gradcheck(of, (rows.requires_grad_(), other.requires_grad_()))


def test_gradients_of_the_correspondence():
    """With the shift's, which counts."""
    features = tuple(torch.randn(2, 5, 3, 3, dtype=torch.float64) for _ in range(3))
    codes = tuple(torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    coordinates = tuple(torch.rand(2, 2, 2, 2, dtype=torch.float64) * 2 - 1 for _ in range(3))
    loss = AdaptiveCorrespondenceLoss(0.3, 0.6, shift_bias=0.05)

    def of(*changed: Tensor) -> Tensor:
        return torch.stack(list(loss(features, changed, coordinates, torch.tensor([[1, 0]])).values())).sum()

    assert torch.autograd.gradcheck(of, codes)


@pytest.mark.parametrize('smoothing', [None, 0.1])
def test_a_label_alone(smoothing):
    """With one label there is nothing to be told apart from, and the loss is 0."""
    rows = F.normalize(torch.randn(6, 3), dim=1)
    loss = ObjectContrastLoss(smoothing=smoothing)
    assert float(loss(rows, rows, torch.full((6,), 2), torch.rand(6), 4)) == pytest.approx(0, abs=1e-6)


def test_eigenvectors_where_nothing_differs(monkeypatch):
    """A blank image and code have no second vector of their own; the result is finite, orthonormal and the same again.

    Where ARPACK does not converge, LAPACK answers.
    """
    matrices = eigen_cue.laplacian(torch.ones(1, 100, 4), torch.zeros(1, 100, 3))
    first, again = (eigenvectors.largest_eigenvectors(torch.eye(100) - matrices, 4) for _ in range(2))
    assert torch.equal(first, again)
    close(first.transpose(1, 2) @ first, torch.eye(4)[None], atol=1e-5)
    monkeypatch.setattr(eigenvectors, 'ROUNDS', 1)
    noise = torch.eye(100) - eigen_cue.laplacian(torch.randn(1, 100, 64), torch.randn(1, 100, 3))
    exact = torch.linalg.eigh(noise).eigenvectors[..., -4:].flip(-1)
    dots = (eigenvectors.largest_eigenvectors(noise, 4) * exact).sum(1).abs()
    close(dots, torch.ones(1, 4), atol=1e-5)


def test_codes_that_are_not_finite_are_left_to_the_losses():
    colours = torch.randn(1, 3, 5, 5)
    for value in (torch.nan, torch.inf, -torch.inf, 1e20):
        code = torch.randn(1, 4, 5, 5)
        code[0, 0, 0, 0] = value
        assert EigenCue()(code, colours).isfinite().all()
    code = torch.randn(1, 4, 5, 5)
    assert torch.equal(EigenCue()(code * 2.0**70, colours), EigenCue()(code, colours))


def test_refusals():
    with pytest.raises(ValueError, match=r"sign must be one of \('reference', 'canonical'\); got 'plus'"):
        MODELS.build(dict(type='EigenCue', sign='plus'))
    with pytest.raises(ValueError, match='num_vectors'):
        EigenCue(num_vectors=1)
    with pytest.raises(ValueError, match='4 eigenvectors need as many positions, and the code has 2'):
        EigenCue()(torch.ones(1, 3, 1, 2), torch.ones(1, 3, 1, 2))
    with pytest.raises(ValueError, match='temperature'):
        ObjectContrastLoss(temperature=0.0)
