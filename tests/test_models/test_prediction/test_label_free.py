"""The meter on a model whose code is known: what is the same in a mirror and a crop, and sums over several meters."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.evaluation.label_free import FIGURES
from omh_mmseg.models.prediction.cluster_bias import ClusterBias
from omh_mmseg.models.prediction.label_free import LabelFreeMeter

STRIDE = 4
CENTRES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def model(encode, levels: tuple[Tensor, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        encode=encode, backbone=SimpleNamespace(stride=STRIDE), cluster_probe=SimpleNamespace(centres=CENTRES),
        omh_head=SimpleNamespace(centres=levels) if levels else None,
        cluster_bias=ClusterBias(dict(pred_sem_seg=len(CENTRES)) | {
            f'pred_level{number}': len(level) for number, level in enumerate(levels, 1)
        }),
        predictor=SimpleNamespace(encode=lambda model, inputs: model.encode(inputs)),
    )  # fmt: skip


def by_colour(images: Tensor) -> Tensor:
    """A code that is the mean of the first two channels of each cell: it sees nothing but the cell."""
    return F.avg_pool2d(images[:, :2], STRIDE)


def by_place(images: Tensor) -> Tensor:
    """A code that knows the place in the image alone: the first centre on the left, the second on the right."""
    code = torch.zeros(len(images), 2, images.shape[-2] // STRIDE, images.shape[-1] // STRIDE)
    half = code.shape[-1] // 2
    code[:, 0, :, :half], code[:, 1, :, half:] = 1, 1
    return code


@pytest.fixture
def image() -> Tensor:
    """The left quarter of the first cluster, the rest of the second."""
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, :, :8], image[:, 1, :, 8:] = 1, 1
    return image


def test_code_of_the_cell_alone(image: Tensor) -> None:
    meter = LabelFreeMeter(model(by_colour))
    grid = meter.add(image, (32, 32))
    clusters, margin = grid['probe']
    np.testing.assert_array_equal(clusters, [[0, 0, 1, 1, 1, 1, 1, 1]] * 8)
    np.testing.assert_allclose(margin, 1, rtol=1e-6)
    figures = meter.figures()['probe']
    assert list(figures) == list(FIGURES)
    assert figures['in_use'] == 2 and figures['mirror'] == figures['crop'] == 100
    assert figures['margin'] == pytest.approx(1) and figures['boundary'] == pytest.approx(100 * 28 / 30)
    assert figures['effective'] == pytest.approx(math.exp(-0.25 * math.log(0.25) - 0.75 * math.log(0.75)))
    assert meter.sizes['probe'].tolist() == [256, 768, 0]
    assert meter.scores()['label_free/probe/mirror'] == 100


def test_code_of_the_place_alone(image: Tensor) -> None:
    meter = LabelFreeMeter(model(by_place))
    meter.add(image, (32, 32))
    figures = meter.figures()['probe']
    assert figures['mirror'] == 0 and figures['crop'] == 100  # the middle's halves are the image's
    assert figures['boundary'] < 50


def test_padding_does_not_count(image: Tensor) -> None:
    padded = F.pad(image[..., :24, :], (0, 0, 0, 8))
    padded[:, 2, 24:] = 5
    meter, expected = LabelFreeMeter(model(by_colour)), LabelFreeMeter(model(by_colour))
    grid = meter.add(padded, (24, 32))
    expected.add(image[..., :24, :], (24, 32))
    assert grid['probe'][0].shape == (6, 8)
    assert meter.sizes['probe'].tolist() == [192, 576, 0] == expected.sizes['probe'].tolist()
    assert meter.figures() == expected.figures()


def test_sums_of_processes_add_up(image: Tensor) -> None:
    levels = (CENTRES[:1], CENTRES[:2])
    images = [image, image.roll(4, -1), image.flip(-1)]
    whole, parts = LabelFreeMeter(model(by_colour, levels)), []
    for each in images:
        whole.add(each, (32, 32))
        parts.append(LabelFreeMeter(model(by_colour, levels)))
        parts[-1].add(each, (32, 32))
    joined = LabelFreeMeter(model(by_colour, levels))
    joined.use_state(sum(part.state() for part in parts))
    assert list(joined.figures()) == ['probe', 'level1', 'level2']
    for head, figures in whole.figures().items():
        assert joined.figures()[head] == pytest.approx(figures, nan_ok=True)
    # One cluster: it always agrees, and has no second best and no boundary.
    one = whole.figures()['level1']
    assert one['mirror'] == one['crop'] == 100 and math.isnan(one['margin']) and math.isnan(one['boundary'])
    assert 'label_free/level1/margin' not in whole.scores()


def test_without_passes_nothing_is_measured(image: Tensor) -> None:
    meter = LabelFreeMeter(model(by_colour))
    grid = meter.add(image, (32, 32), code=by_colour(image), passes=False)
    assert grid['probe'][0].shape == (8, 8) and meter.sizes['probe'].sum() == 0
    assert math.isnan(meter.figures()['probe']['margin'])


def test_a_refitted_clustering_is_measured_with_its_bias() -> None:
    """As it predicts: a bias that outweighs the cosines leaves one cluster, on the grid and at full size."""
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    refitted = model(by_colour, levels=(CENTRES,))
    plain = LabelFreeMeter(refitted).add(image, (32, 32))
    refitted.cluster_bias.set('pred_level1', torch.tensor([0.0, 0.0, 3.0]))
    meter = LabelFreeMeter(refitted)
    grid = meter.add(image, (32, 32))
    assert (grid['level1'][0] == 2).all()
    assert meter.sizes['level1'].tolist() == [0, 0, 32 * 32]
    assert meter.figures()['level1']['mirror'] == meter.figures()['level1']['crop'] == 100
    np.testing.assert_array_equal(grid['probe'][0], plain['probe'][0])
    assert meter.figures()['probe']['in_use'] == 2
