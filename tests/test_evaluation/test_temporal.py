"""Steadiness of predictions along known flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from omh_mmseg.evaluation import UnsupervisedIoUMetric
from omh_mmseg.evaluation.protocols import apply_protocol
from omh_mmseg.evaluation.temporal import consistency
from omh_mmseg.registry import DATASETS
from omh_mmseg.shipped import config_path
from omh_mmseg.structures.protocols import resolve
from omh_mmseg.utils.config import read_config

PIPELINE = [
    dict(type='LoadImageFromFile', _scope_='omh_mmseg'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]


@pytest.fixture(scope='module')
def frames(tmp_path_factory):
    init_default_scope('mmseg')
    root = str(tmp_path_factory.mktemp('moving') / 'scenes')
    scenes = dict(type='MovingScenes', split='val', data_root=root, sequences=dict(train=1, val=2), pipeline=PIPELINE)
    return DATASETS.build(dict(type='FramesWithFlow', dataset=scenes))


def score(frames, predict, labels: bool = True, **options) -> dict[str, float]:
    metric = UnsupervisedIoUMetric(**options)
    metric.dataset_meta = frames.metainfo
    metric.use_cluster_sizes(dict(pred_sem_seg=6, pred_level2=12))
    for item in range(len(frames)):
        sample = frames[item]['data_samples']
        truth = sample.gt_sem_seg.data
        sample.pred_sem_seg = PixelData(data=predict(truth, item))
        sample.pred_level2 = PixelData(data=predict(truth, item))
        if not labels:
            del sample.gt_sem_seg
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(frames))


def test_a_perfect_prediction_is_steady(frames):
    scores = score(frames, lambda truth, item: truth.clone())
    assert scores['probe/TC'] == scores['level2/TC'] == 100 and scores['probe/changes'] == 0
    assert scores['probe/mIoU'] == 100


def test_a_shuffled_one_is_near_chance(frames):
    """Independent clusters of shares q agree with the IoU ``q / (2 - q)``."""
    scores = score(frames, lambda truth, item: torch.randint(0, 6, truth.shape), labels=False, prefix='a')
    assert set(scores) == {f'a/{head}/{figure}' for head in ('probe', 'level2') for figure in ('TC', 'changes')}
    assert scores['a/probe/TC'] == pytest.approx(100 / 11, abs=0.3)
    assert scores['a/probe/changes'] == pytest.approx(100 * 5 / 6 / 0.1, rel=0.02)


def test_flicker_in_every_second_frame(frames):
    """The sequences are apart: 7 pairs of 8 frames, and all of their pixels change."""
    scores = score(frames, lambda truth, item: torch.full_like(truth, item % 2))
    assert scores['probe/TC'] == 0 and scores['probe/changes'] == pytest.approx(1000)


def test_consistency_counts_clusters_in_use_alone():
    assert consistency(np.diag([5, 3, 0])) == 100
    assert consistency(np.array([[4, 2], [0, 6]])) == pytest.approx(100 * (4 / 6 + 6 / 8) / 2)
    assert np.isnan(consistency(np.zeros((2, 2))))


def test_protocol():
    config = read_config(str(config_path('stego_vit-t8_moving')), {})
    protocol = apply_protocol(config, 'video')
    assert protocol.settings()['temporal'] and 'temporal' not in resolve('mmseg').settings()
    dataset = config.test_dataloader.dataset
    assert (dataset.type, dataset.dataset.type) == ('FramesWithFlow', 'MovingScenes')
    apply_protocol(config, 'video')
    assert config.test_dataloader.dataset.dataset.type == 'MovingScenes'


def test_a_crop_is_refused(frames):
    metric = UnsupervisedIoUMetric()
    metric.dataset_meta = frames.metainfo
    sample = frames[1]['data_samples']
    sample.pred_sem_seg = PixelData(data=sample.gt_sem_seg.data)
    sample.set_metainfo(dict(crop_bbox=(0, 0, 128, 128)))
    with pytest.raises(ValueError, match='a crop was predicted'):
        metric.process({}, [sample.to_dict()])
