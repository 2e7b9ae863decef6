"""The bias of a closing refit: in every prediction, and in the weights where there is one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.prediction.cluster_bias import ClusterBias, clusterings
from omh_mmseg.models.utils.loaded_weights import PREDICT, fill_model, start

FIELDS = {'pred_sem_seg': 4, 'pred_level1': 4, 'pred_level2': 8, 'pred_level3': 16}


@pytest.fixture
def model(tiny_stego) -> torch.nn.Module:
    """A model whose clusterings have a bias of the size of their cosines."""

    def build(bias: bool = True, **parts) -> torch.nn.Module:
        torch.manual_seed(3)
        built = tiny_stego(**parts).eval()
        if bias:
            for field, size in FIELDS.items():
                built.cluster_bias.set(field, 0.4 * torch.randn(size, generator=torch.Generator().manual_seed(size)))
        return built

    return build


def images(count: int = 1, height: int = 32, width: int = 48) -> Tensor:
    torch.manual_seed(5)
    return F.interpolate(torch.randn(count, 3, 5, 7), size=(height, width), mode='bilinear')


def by_formula(model: torch.nn.Module, field: str, code: Tensor) -> Tensor:
    """argmax_k <z, C_k> + |z| b_k of an upsampled code (1, D, H, W)."""
    centres = F.normalize(clusterings(model)[field], dim=1)
    scores = torch.einsum('bdhw,kd->bkhw', code, centres)
    bias = model.cluster_bias.of(field)
    return (scores + code.norm(dim=1, keepdim=True) * (0 if bias is None else bias[:, None, None])).argmax(1)


@pytest.mark.parametrize('size', [(32, 48), (70, 61)])
def test_prediction_is_the_formula_on_the_upsampled_code(model, size) -> None:
    built, batch = model(), images()
    sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=(32, 48)))
    (predicted,) = built.predict(batch, [sample])
    code = F.interpolate(built.encode(batch), size=size, mode='bilinear')
    for field in FIELDS:
        agree = predicted.get(field).data == by_formula(built, field, code)
        assert agree.float().mean() >= 0.999, field
        plain = model(bias=False).predict(batch, [SegDataSample(metainfo=sample.metainfo)])[0]
        assert not torch.equal(plain.get(field).data, predicted.get(field).data), field


def test_padded_images_are_upsampled_twice(model) -> None:
    built, batch = model(), images()
    sample = SegDataSample(metainfo=dict(ori_shape=(50, 44), img_shape=(27, 41)))
    (predicted,) = built.predict(batch, [sample])
    code = F.interpolate(built.encode(batch), size=(32, 48), mode='bilinear')[..., :27, :41]
    code = F.interpolate(code, size=(50, 44), mode='bilinear')
    for field in FIELDS:
        assert (predicted.get(field).data == by_formula(built, field, code)).float().mean() >= 0.999, field


def test_scores_of_the_probe_have_it(model) -> None:
    built, plain, batch = model(), model(bias=False), images()
    bias = built.cluster_bias.of('pred_sem_seg')[:, None, None]
    for mode in ('_forward', 'encode_decode'):
        torch.testing.assert_close(getattr(built, mode)(batch), getattr(plain, mode)(batch) + bias)


def test_a_crf_sees_it(model, monkeypatch) -> None:
    built = model(test_cfg=dict(crf=dict(backend='torch', iterations=1)))
    seen: list[dict[str, Tensor]] = []

    def refine(jobs):
        for _, fields in jobs:
            seen.append(fields)
            yield fields

    monkeypatch.setattr(built.predictor.crf, 'refine', refine)
    batch = images()
    code = F.interpolate(built.encode(batch), size=(32, 48), mode='bilinear')
    built.predict(batch, [SegDataSample(metainfo=dict(ori_shape=(32, 48), img_shape=(32, 48)))])
    for field in FIELDS:
        cosines = torch.einsum('bdhw,kd->bkhw', F.normalize(code, dim=1), F.normalize(clusterings(built)[field], dim=1))
        expected = built.predictor.options.alpha * (cosines + built.cluster_bias.of(field)[:, None, None])
        torch.testing.assert_close(seen[0][field], expected.log_softmax(1)[0], atol=1e-4, rtol=1e-4)


def test_weights_without_a_refit_are_those_of_before(model) -> None:
    assert not [key for key in model(bias=False).state_dict() if key.startswith('cluster_bias')]
    assert {key for key in model().state_dict() if key.startswith('cluster_bias')} == {
        f'cluster_bias.{field}' for field in FIELDS
    }


def test_weights_carry_it(model) -> None:
    refitted, other = model(), model(bias=False)
    other.load_state_dict(copy.deepcopy(refitted.state_dict()))
    for field in FIELDS:
        assert torch.equal(other.cluster_bias.of(field), refitted.cluster_bias.of(field))
    refitted.load_state_dict(model(bias=False).state_dict())
    assert all(refitted.cluster_bias.of(field) is None for field in FIELDS)


def test_a_bias_goes_with_its_clusters(model) -> None:
    state = model().state_dict()
    host = model(bias=False, omh_head=None)
    fill_model(host, dict(state), PREDICT)
    assert host.cluster_bias.of('pred_sem_seg') is not None and host.cluster_bias.of('pred_level1') is None
    fresh = model(bias=False)
    fill_model(fresh, dict(state), start(['omh_head']))
    assert fresh.cluster_bias.of('pred_level1') is None


def test_a_new_run_forgets_it(model) -> None:
    built = model()
    built.begin_run()
    assert all(built.cluster_bias.of(field) is None for field in FIELDS)


def test_zeros_are_no_bias_and_wrong_ones_are_refused() -> None:
    bias = ClusterBias(dict(a=3))
    bias.set('a', torch.zeros(3))
    assert bias.of('a') is None and not bias.state_dict()
    for field, values in (('b', torch.ones(3)), ('a', torch.ones(4))):
        with pytest.raises(ValueError, match=f'bias of {field} has shape'):
            bias.set(field, values)
    cosines = torch.rand(1, 3, 2, 2)
    assert bias.add('a', cosines) is cosines
