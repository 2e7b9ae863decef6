"""The classes of a model's clusters: set, kept, loaded, applied, and refused."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from omh_mmseg.models.prediction import ClusterAssignment

SIZES = dict(pred_sem_seg=3, pred_level2=5)


def test_unknown_at_first() -> None:
    assignment = ClusterAssignment(SIZES)
    assert assignment.known == [] and assignment.as_dict() == {}


def test_classes_of_clusters() -> None:
    assignment = ClusterAssignment(SIZES)
    assignment.set('pred_level2', [7, -1, 0, 0, 7])
    assert assignment.known == ['pred_level2']
    assert assignment.as_dict() == dict(pred_level2=[7, -1, 0, 0, 7])


@pytest.mark.parametrize(
    ('field', 'classes', 'message'),
    [
        ('pred_level3', [0, 1, 2], 'there is no pred_level3 .*pred_sem_seg, pred_level2'),
        ('pred_sem_seg', [0, 1], 'must hold 3 class numbers.*got .0, 1.'),
        ('pred_sem_seg', [0, 1, -2], r'must hold 3 class numbers.*-2'),
        ('pred_sem_seg', [0.0, 1.0, 2.0], 'must hold 3 class numbers'),
    ],
)
def test_refused(field: str, classes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterAssignment(SIZES).set(field, classes)


def test_travels_with_the_weights() -> None:
    assignment = ClusterAssignment(SIZES)
    assignment.set('pred_sem_seg', [2, 0, 1])
    other = ClusterAssignment(SIZES)
    other.load_state_dict(assignment.state_dict(), strict=True)
    assert other.as_dict() == dict(pred_sem_seg=[2, 0, 1])


@pytest.mark.parametrize('strict', [False, True])
def test_older_weights_load(strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Weights without an assignment load strictly, and through mmengine without a word of lost keys."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    weights = model.state_dict()
    model.assignment = ClusterAssignment(SIZES)
    if strict:
        assert model.load_state_dict(weights, strict=True).missing_keys == []
    else:
        messages: list[str] = []
        load_state_dict(model, dict(weights), strict=True, logger=type('', (), dict(warning=messages.append))())
        assert messages == []
    assert model.assignment.known == []


def test_set_by_hand_wins(tmp_path) -> None:
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(dict(assignment=dict(pred_sem_seg=[1, 1, 0]), split='train')))
    assignment = ClusterAssignment(SIZES, path)
    stored = ClusterAssignment(SIZES)
    stored.update(dict(pred_sem_seg=[2, 2, 2], pred_level2=[0] * 5, pred_other=[1]))
    assignment.load_state_dict(stored.state_dict())
    assert assignment.as_dict() == dict(pred_sem_seg=[1, 1, 0], pred_level2=[0] * 5)
    assert assignment.update(dict(pred_sem_seg=[0, 0, 0], pred_level2=[3] * 5)) == ['pred_sem_seg']
    assert assignment.as_dict() == dict(pred_sem_seg=[1, 1, 0], pred_level2=[3] * 5)


def test_samples_are_annotated() -> None:
    sample = SegDataSample(metainfo=dict(img_path='a.jpg'))
    sample.pred_sem_seg = PixelData(data=torch.tensor([[[0, 2]]]))
    assignment = ClusterAssignment(SIZES)
    assignment.annotate([sample])
    assert sample.cluster_classes == {}
    assignment.set('pred_sem_seg', [5, 4, 3])
    assignment.annotate([sample])
    assert sample.to_dict()['cluster_classes'] == dict(pred_sem_seg=[5, 4, 3])
    assert sample.pred_sem_seg.data.tolist() == [[[0, 2]]]


def test_segmentor_predicts_clusters_and_tells_their_classes(tiny_stego) -> None:
    """With extra clusters and levels; weights from before there were assignments load."""
    model = tiny_stego(cluster_probe=dict(type='ClusterProbe', extra_clusters=30)).eval()
    sizes = model.assignment.sizes
    assert sizes['pred_sem_seg'] == model.num_classes + 30
    assert sizes['pred_level2'] == model.omh_head.level_sizes[1]
    inputs = torch.randn(1, 3, 32, 32)
    (before,) = model.predict(inputs)
    assert before.pred_sem_seg.data.max() >= model.num_classes and before.cluster_classes == {}
    model.assignment.set('pred_sem_seg', [0] * sizes['pred_sem_seg'])
    (after,) = model.predict(inputs)
    assert torch.equal(after.pred_sem_seg.data, before.pred_sem_seg.data)
    assert after.cluster_classes == dict(pred_sem_seg=[0] * sizes['pred_sem_seg'])
    older = {key: value for key, value in model.state_dict().items() if not key.startswith('assignment.')}
    assert model.load_state_dict(older, strict=True).missing_keys == []


def test_segmentor_takes_classes_from_its_config(tiny_stego) -> None:
    model = tiny_stego(test_cfg=dict(assignment=dict(pred_sem_seg=[3, 2, 1, 0])))
    assert model.assignment.as_dict() == dict(pred_sem_seg=[3, 2, 1, 0])
    with pytest.raises(ValueError, match='must hold 4 class numbers'):
        tiny_stego(test_cfg=dict(assignment=dict(pred_sem_seg=[0])))
