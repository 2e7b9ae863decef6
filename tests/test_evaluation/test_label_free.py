"""Figures of a segmentation that need no labels, against ones worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omh_mmseg.evaluation.label_free import (
    BoundaryAgreement,
    cluster_boundaries,
    effective_clusters,
    image_gradients,
    margins,
)


def test_effective_clusters() -> None:
    assert effective_clusters(np.array([5, 5, 0, 5])) == pytest.approx(3)
    assert effective_clusters(np.array([7, 0])) == 1
    assert effective_clusters(np.array([3, 1])) == pytest.approx((4 / 3) ** 0.75 * 4**0.25)
    assert math.isnan(effective_clusters(np.zeros(3)))


def test_margins() -> None:
    similarities = torch.tensor([[[0.9, -1.0]], [[0.2, -0.5]], [[0.7, -0.9]]])
    torch.testing.assert_close(margins(similarities), torch.tensor([[0.2, 0.4]]))
    assert margins(similarities[:1]).isnan().all()


def test_boundaries_have_two_sides() -> None:
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    expected = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(cluster_boundaries(labels), expected)


def test_gradients_are_seen_within_the_tolerance() -> None:
    image = torch.zeros(3, 9, 12)
    image[0, :, 6:] = 3 / 4
    image[1, :, 6:] = -1
    sharp, wide = image_gradients(image, 0), image_gradients(image, 2)
    assert (sharp[:, 5:7] == 5).all() and (sharp[:, :5] == 0).all() and (sharp[:, 7:] == 0).all()
    assert (wide[:, 3:9] == 5).all() and (wide[:, :3] == 0).all() and (wide[:, 9:] == 0).all()
    assert torch.equal(image_gradients(image.flip(-1), 1), image_gradients(image, 1).flip(-1))


def test_boundaries_on_edges_against_all_pairs_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (7, 9), generator=generator)
    labels[3:, 4:] = 1
    gradients = torch.randint(5, (7, 9), generator=generator).float()
    edges = cluster_boundaries(labels)
    on, off = gradients[edges][:, None], gradients[~edges][None]
    expected = ((on > off).double() + (on == off).double() / 2).mean()
    assert BoundaryAgreement(gradients).of(labels) == pytest.approx(float(expected))


def test_boundaries_that_follow_the_image_and_ones_that_do_not() -> None:
    image = torch.zeros(3, 32, 32)
    image[:, :, 10:] = 1
    gradients, labels = image_gradients(image), torch.zeros(32, 32, dtype=torch.long)
    assert math.isnan(BoundaryAgreement(gradients).of(labels))
    labels[:, 10:] = 1
    # Of 30 columns without a boundary four have the gradient of the two that have it.
    assert BoundaryAgreement(gradients).of(labels) == pytest.approx(28 / 30)
    away = torch.zeros_like(labels)
    away[:, 25:] = 1
    assert BoundaryAgreement(gradients).of(away) < 0.5
    assert BoundaryAgreement(torch.ones(32, 32)).of(away) == 0.5
