"""Mask proposals of PriMaPs against the numbers of its authors' functions, and where theirs break."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.prediction.mask_proposals import MaskProposals
from omh_mmseg.models.utils.eigenvectors import largest_eigenvectors
from omh_mmseg.models.utils.mask_proposals import (
    COVERED,
    NO_PROPOSAL,
    assign_proposals,
    mask_log_probabilities,
    median3x3,
    principal_masks,
)

CASES = [f'mask{number}' for number in range(5)]


@pytest.fixture
def case(golden: Callable[[str], dict[str, np.ndarray]]) -> Callable[[str], dict[str, Tensor]]:
    """The arrays of one group."""

    def load(group: str) -> dict[str, Tensor]:
        arrays = golden('primaps')
        return {
            key.removeprefix(f'{group}/'): torch.from_numpy(np.array(value))
            for key, value in arrays.items()
            if key.startswith(f'{group}/')
        }

    return load


@pytest.mark.parametrize('group', CASES)
def test_proposals_are_the_authors(case: Callable[[str], dict[str, Tensor]], group: str) -> None:
    a = case(group)
    masks = principal_masks(a['feat'], float(a['threshold']), components=list(a['principal_v']))
    assert torch.equal(masks.flatten(1).argmax(1), a['seed_index'])
    torch.testing.assert_close(masks, a['proposals'], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(median3x3(masks), a['median'], rtol=1e-5, atol=1e-6)
    logarithms = mask_log_probabilities(masks)
    assert logarithms is not None
    torch.testing.assert_close(logarithms, a['unary_logprob'], rtol=1e-5, atol=1e-6)
    assert torch.equal(logarithms.argmax(0), a['precrf_argmax'].long())


@pytest.mark.parametrize('group', CASES)
def test_the_crf_brings_them_to_the_borders_of_the_image(
    case: Callable[[str], dict[str, Tensor]], group: str
) -> None:
    a = case(group)
    module = MaskProposals(float(a['threshold']), crf=dict(backend='torch'))
    full = F.interpolate(a['unary_logprob'][None], size=a['img_u8'].shape[1:], mode='bilinear', align_corners=False)[0]
    assert module.crf is not None
    (refined,) = module.crf.refine([(a['img_u8'].flip(0), dict(masks=full))])
    # Compilers differ by a few pixels (docs/methods/primaps.md 3).
    assert (refined['masks'].argmax(0) != a['crf_argmax']).float().mean() <= 0.01
    torch.testing.assert_close(refined['masks'].amax(0)[::8, ::8], a['crf_max'], rtol=0, atol=2e-2)


@pytest.mark.parametrize('group', CASES)
def test_a_proposal_gets_its_most_frequent_class(case: Callable[[str], dict[str, Tensor]], group: str) -> None:
    a = case(group)
    classes = a['class_prior'].long()
    regions = a['crf_argmax']
    stored = torch.where(regions == 0, NO_PROPOSAL, regions)
    assert torch.equal(stored, a['pseudo'])
    found = assign_proposals(classes[None], stored[None], int(classes.max()) + 1)[0]
    assert torch.equal(torch.where(found < 0, NO_PROPOSAL, found), a['pseudo_with_prior'].long())


def test_a_single_proposal_is_no_background(case: Callable[[str], dict[str, Tensor]]) -> None:
    a = case('single')
    masks = principal_masks(a['feat'], 0.4)
    logarithms = mask_log_probabilities(masks)
    assert logarithms is not None
    torch.testing.assert_close(logarithms, a['unary_logprob'], rtol=1e-5, atol=1e-6)


def test_the_smallest_of_equally_frequent_classes() -> None:
    classes = torch.tensor([[[2, 1], [1, 2]], [[0, 0], [3, 3]]])
    proposals = torch.tensor([[[7, 7], [7, 7]], [[NO_PROPOSAL, 1], [1, 1]]], dtype=torch.uint8)
    assert assign_proposals(classes, proposals, 4).tolist() == [[[1, 1], [1, 1]], [[-1, 3], [3, 3]]]


@pytest.mark.parametrize('group', CASES)
def test_the_component_is_that_of_a_full_decomposition(case: Callable[[str], dict[str, Tensor]], group: str) -> None:
    a = case(group)
    rows = a['feat'].flatten(1).t()
    covariance = torch.cov(rows.t(), correction=0)
    exact = torch.linalg.eigh(covariance.double())[1][:, -1]
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        component = largest_eigenvectors(covariance[None].to(dtype), 1)[0, :, 0]
        assert 1 - (component.double() @ exact).abs() < limit
    # The authors' first component, by their randomised decomposition.
    assert 1 - (exact @ a['principal_v'][0].double()).abs() < 1e-5


@pytest.mark.parametrize('kind', ['noise', 'constant', 'zero', 'tiny', 'one_channel'])
def test_masks_are_disjoint_and_finite_where_the_reference_gives_nan(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(4, 12, 12, generator=generator)
    features = dict(
        noise=features,
        constant=torch.ones(4, 12, 12),
        zero=torch.zeros(4, 12, 12),
        tiny=features[:, :1, :2],
        one_channel=features[:1],
    )[kind]
    masks = principal_masks(features, 0.4, most=200)
    assert torch.isfinite(masks).all()
    assert int((masks > 0).sum(0).max()) == 1
    assert (masks > 0).any(0).float().mean() >= COVERED
    logarithms = mask_log_probabilities(masks)
    assert logarithms is None or bool(torch.isfinite(logarithms).all())
    maps = MaskProposals(crf=None)(features[None], (24, 24))
    assert maps.shape == (1, 24, 24) and maps.dtype == torch.uint8


def test_the_sign_of_the_components_is_fixed() -> None:
    features = torch.randn(8, 10, 10, generator=torch.Generator().manual_seed(0)) + 1
    torch.testing.assert_close(principal_masks(features, 0.4), principal_masks(features.flip(0), 0.4))


def test_no_more_masks_than_asked_for() -> None:
    features = torch.randn(8, 10, 10, generator=torch.Generator().manual_seed(0))
    assert len(principal_masks(features, 0.9, most=5)) == 5


def test_half_precision_is_widened() -> None:
    features = torch.randn(8, 10, 10, generator=torch.Generator().manual_seed(0)) + 1
    with torch.autocast('cpu', torch.bfloat16):
        half = MaskProposals(crf=None)(features[None], (20, 20))
    assert torch.equal(half, MaskProposals(crf=None)(features[None], (20, 20)))
