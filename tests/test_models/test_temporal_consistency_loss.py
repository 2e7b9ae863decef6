"""The temporal term against its formula."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from omh_mmseg.models.losses import TemporalConsistencyLoss
from omh_mmseg.models.losses.temporal_consistency_loss import stacked_flow


@pytest.fixture
def case() -> SimpleNamespace:
    torch.manual_seed(0)
    code = torch.randn(2, 5, 4, 6, requires_grad=True)
    sizes = dict(pred_sem_seg=3, pred_level2=7)
    centres = {field: torch.randn(size, 5, requires_grad=True) for field, size in sizes.items()}
    flow = torch.zeros(2, 2, 4, 6)
    flow[:, 0] = 1
    shown = torch.ones(2, 4, 6)
    shown[..., -1] = 0
    return SimpleNamespace(code=code, centres=centres, flow=flow, shown=shown)


@pytest.mark.parametrize(('clusterings', 'part'), [('all', slice(0, 2)), ('levels', slice(1, 2))])
def test_formula(case, clusterings, part):
    later = torch.randn(2, 5, 4, 6, requires_grad=True)
    loss = TemporalConsistencyLoss(loss_weight=2.0, temperature=0.3, clusterings=clusterings)
    losses = loss(case.code, later, case.centres, case.flow, case.shown)
    expected = []
    for centres in case.centres.values():
        a, b = (
            torch.softmax(torch.einsum('bdhw,kd->bkhw', F.normalize(code, dim=1), F.normalize(centres, dim=1)) / 0.3, 1)
            for code in (case.code, later)
        )
        a, b = a[..., :-1], b[..., 1:]  # one position to the right
        expected.append((b * (b.log() - a.log())).sum(1).mean())
    assert losses['loss_temporal'].item() == pytest.approx(2 * torch.stack(expected[part]).mean().item(), rel=1e-5)
    for head, value in zip(('probe', 'level2'), expected):
        assert losses[f'temporal_{head}'].item() == pytest.approx(value.item(), rel=1e-5)
    losses['loss_temporal'].backward()
    assert case.code.grad.norm() > 0 and later.grad is None
    assert all(centres.grad is None for centres in case.centres.values())
    assert case.code.grad[..., -1].norm() == 0  # not shown


def test_a_probe_alone_takes_part(case):
    later, centres = torch.randn(2, 5, 4, 6), dict(pred_sem_seg=case.centres['pred_sem_seg'])
    losses = [
        TemporalConsistencyLoss(clusterings=clusterings)(case.code, later, centres, case.flow, case.shown)
        for clusterings in ('levels', 'all')
    ]
    assert losses[0]['loss_temporal'] == losses[1]['loss_temporal'] > 0
    with pytest.raises(ValueError, match=r"clusterings must be one of \('levels', 'all'\); got 'probe'"):
        TemporalConsistencyLoss(clusterings='probe')


def test_frames_that_agree_cost_nothing(case):
    later = torch.roll(case.code.detach(), 1, dims=3)
    losses = TemporalConsistencyLoss()(case.code, later, case.centres, case.flow, case.shown)
    assert losses['loss_temporal'].item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match='model.temporal=None'):
        TemporalConsistencyLoss(loss_weight=0.0)


def test_flow_of_padded_images():
    """Cells of 8 pixels of images of 24 x 32, padded to 32 x 32, on a code of 4 x 4; what is padded is not shown."""
    field = torch.ones(3, 3, 4)
    field[0], field[1] = 8.0, 4.0
    sample = SegDataSample(metainfo=dict(img_shape=(24, 32)))
    sample.set_data(dict(flow_to_later=PixelData(data=field)))
    flow, shown = stacked_flow([sample], (32, 32), (4, 4), torch.device('cpu'))
    assert flow.shape == (1, 2, 4, 4) and flow[0, 0, 0, 0] == 1 and flow[0, 1, 0, 0] == 0.5
    assert shown[0, :3].eq(1).all() and shown[0, 3].eq(0).all()
    with pytest.raises(ValueError, match='TemporalPairs puts it there'):
        stacked_flow([SegDataSample()], (32, 32), (4, 4), torch.device('cpu'))
