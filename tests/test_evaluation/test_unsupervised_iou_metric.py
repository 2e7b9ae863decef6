"""The metric: scores, missing labels, bad values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_samples import PERMUTATION, expected, make_metric, make_sample, run
from mmengine.structures import PixelData
from mmseg.registry import METRICS as MMSEG_METRICS
from mmseg.structures import SegDataSample

from omh_mmseg.evaluation import UnsupervisedIoUMetric
from omh_mmseg.evaluation.scores import (
    adjusted_rand_index,
    confusion_matrix,
    normalised_mutual_information,
    scores_from_confusion,
)
from omh_mmseg.structures.assignment import write_assignment


def test_registered_in_mmseg() -> None:
    assert MMSEG_METRICS.get('UnsupervisedIoUMetric') is UnsupervisedIoUMetric


def test_scores_of_all_heads(messages: list[str]) -> None:
    fields = ('pred_sem_seg', 'pred_linear', 'pred_level1')
    samples = [make_sample(i, fields=fields) for i in range(5)]
    metric = make_metric()
    scores = run(metric, samples)
    assert list(scores) == [
        'probe/mIoU', 'probe/aAcc', 'probe/NMI', 'probe/ARI', 'linear/mIoU', 'linear/aAcc',
        'level1/mIoU', 'level1/aAcc', 'level1/NMI', 'level1/ARI',
    ]  # fmt: skip
    assert (scores['probe/mIoU'], scores['probe/aAcc']) == expected(samples, 'pred_sem_seg')
    assert (scores['linear/mIoU'], scores['linear/aAcc']) == expected(samples, 'pred_linear', matched=False)
    assert (scores['level1/mIoU'], scores['level1/aAcc']) == expected(samples, 'pred_level1')
    assert all(type(value) is float and 40 < value < 100 for value in scores.values())
    counts = metric.last_result['probe'].counts
    assert scores['probe/NMI'] == 100 * normalised_mutual_information(counts)
    assert scores['probe/ARI'] == 100 * adjusted_rand_index(counts)
    assert metric.last_result['probe'].assignment[PERMUTATION].tolist() == [0, 1, 2, 3]
    assert metric.last_result['linear'].assignment.tolist() == [0, 1, 2, 3]
    assert any('probe (hungarian)' in text and 'road' in text for text in messages)


def test_identity_head_is_not_matched() -> None:
    samples = [make_sample(i) for i in range(3)]
    scores = run(make_metric(heads=dict(pred_sem_seg=('plain', 'identity'))), samples)
    assert scores['plain/aAcc'] == expected(samples, 'pred_sem_seg', matched=False)[1] < 30


def test_state_is_reset() -> None:
    metric = make_metric()
    run(metric, [make_sample(i) for i in range(4)])
    samples = [make_sample(9)]
    scores = run(metric, samples)
    assert scores['probe/mIoU'] == expected(samples, 'pred_sem_seg')[0]
    assert metric.last_result['probe'].counts.sum() == 48


def test_prefix() -> None:
    scores = run(make_metric(prefix='val'), [make_sample(0)])
    assert set(scores) == {f'val/probe/{figure}' for figure in ('mIoU', 'aAcc', 'NMI', 'ARI')}


def test_absent_class_is_named(messages: list[str]) -> None:
    labels = np.array([[0, 1, 2, 255]] * 4)
    metric = make_metric()
    sample = make_sample(0, labels)
    sample.pred_sem_seg.data = torch.from_numpy(labels.clip(max=2))[None]
    scores = run(metric, [sample])
    assert scores['probe/mIoU'] == scores['probe/aAcc'] == 100
    assert any('without ground truth: car (left out)' in text for text in messages)
    assert metric.last_result['probe'].counts.sum() == 12


def test_absent_class_with_predictions(messages: list[str]) -> None:
    """Counts as 0 as in the papers, unless the other rule is chosen."""
    labels = np.array([[0, 1, 2, 2]] * 4)
    sample = make_sample(0, labels)
    sample.pred_sem_seg.data = torch.tensor([[[0, 1, 2, 3]] * 4])
    assert run(make_metric(), [sample])['probe/mIoU'] == pytest.approx((100 + 100 + 50 + 0) / 4)
    assert run(make_metric(absent='leave_out'), [sample])['probe/mIoU'] == pytest.approx(250 / 3)
    told = [text[text.index('without ground truth') :] for text in messages if 'without ground truth' in text]
    assert told == ['without ground truth: car (counts as 0)', 'without ground truth: car (left out)']


def test_matching_of_all_heads(messages: list[str]) -> None:
    sample = make_sample(0, np.array([[0, 0, 0, 1, 2, 3]]), fields=('pred_sem_seg', 'pred_linear'))
    sample.pred_sem_seg.data = torch.tensor([[[0, 1, 1, 2, 3, 3]]])
    metric = make_metric(matching='majority')
    scores = run(metric, [sample])
    assert metric.last_assignment['pred_sem_seg'].tolist() == [0, 0, 1, 2]
    assert scores['probe/aAcc'] == pytest.approx(100 * 5 / 6)
    assert list(metric.last_assignment) == ['pred_sem_seg']
    assert all(any(head in text for text in messages) for head in ('probe (majority)', 'linear (identity)'))


def test_leftover_clusters_are_named(messages: list[str]) -> None:
    sample = make_sample(0, np.array([[0, 0, 0, 1, 2, 3]]))
    sample.pred_sem_seg.data = torch.tensor([[[4, 4, 3, 1, 2, 0]]])
    scores = run(make_metric(num_clusters=6), [sample])
    assert scores['probe/aAcc'] == pytest.approx(100 * 5 / 6)
    assert any('clusters without a class: 3, 5; their 1 pixels (16.67%) count as missed' in text for text in messages)


def test_legacy_drops_extra_clusters(messages: list[str]) -> None:
    sample = make_sample(0, np.array([[0, 0, 0, 1, 2, 3]]))
    sample.pred_sem_seg.data = torch.tensor([[[4, 4, 3, 1, 2, 0]]])
    scores = run(make_metric(num_clusters=5, legacy=True), [sample])
    assert scores['probe/aAcc'] == 100
    assert any(text.startswith('WARNING: probe: legacy=True drops 2 pixels (33.33%)') for text in messages)


@pytest.mark.golden
def test_golden_extra_clusters(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    arrays = golden('metrics')
    metric = make_metric(num_clusters=9, legacy=True, ignore_index=-1)
    metric.dataset_meta = dict(classes=tuple('abcdef'))
    for batch in range(3):
        for pred, true in zip(arrays[f'extra/pred{batch}'], arrays[f'extra/gt{batch}'], strict=True):
            sample = SegDataSample()
            sample.gt_sem_seg = PixelData(data=torch.from_numpy(true.astype(int))[None])
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(pred.astype(int))[None])
            metric.process(None, [sample.to_dict()])
    scores = metric.evaluate(6)
    assert scores['probe/mIoU'] == pytest.approx(float(arrays['extra/mIoU']), rel=1e-5)
    assert scores['probe/aAcc'] == pytest.approx(float(arrays['extra/Accuracy']), rel=1e-5)


def test_sizes_of_the_model(messages: list[str]) -> None:
    """Extra clusters of the probe and finer levels are counted at the sizes that the model has."""
    sample = make_sample(0, np.array([[0, 0, 0, 1, 2, 3]]))
    sample.pred_sem_seg.data = torch.tensor([[[4, 4, 3, 1, 2, 0]]])
    sample.pred_level2 = PixelData(data=torch.tensor([[[7, 7, 6, 0, 0, 3]]]))
    metric = make_metric()
    metric.use_cluster_sizes(dict(pred_sem_seg=5, pred_level2=8))
    scores = run(metric, [sample])
    assert set(scores) == {f'probe/{figure}' for figure in ('mIoU', 'aAcc', 'NMI', 'ARI')}
    assert metric.last_result['probe'].counts.shape == (5, 4) and list(metric.last_result) == ['probe']
    assert metric.last_assignment['pred_level2'].tolist() == [1, -1, -1, 3, -1, -1, 0, 0]


def test_assignment_fitted_elsewhere(tmp_path: Path, messages: list[str]) -> None:
    """It is applied as it is, even where a matching of these images would be better."""
    other, samples = [make_sample(i) for i in range(3)], [make_sample(9)]
    fitted = make_metric()
    run(fitted, other)
    path = write_assignment(tmp_path / 'a.json', fitted.last_assignment)
    samples[0].pred_sem_seg.data = (samples[0].pred_sem_seg.data + 1) % 4
    scores = run(make_metric(assignment=str(path)), samples)
    counts = confusion_matrix(samples[0].pred_sem_seg.data, samples[0].gt_sem_seg.data, 4, 4)
    expectation = scores_from_confusion(counts, fitted.last_assignment['pred_sem_seg'])
    assert scores['probe/mIoU'] == expectation.mean_iou < 20 < run(make_metric(), samples)['probe/mIoU']
    assert any(f'probe (assignment of {path})' in text for text in messages)
    by_hand = run(make_metric(assignment=dict(pred_sem_seg=[1, 3, 0, 2])), other)
    assert by_hand['probe/mIoU'] == expected(other, 'pred_sem_seg')[0]


def test_assignment_without_a_head() -> None:
    samples = [make_sample(0, fields=('pred_sem_seg', 'pred_linear', 'pred_level1'))]
    metric = make_metric(assignment=dict(pred_sem_seg=[0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r'the config has pred_sem_seg but not pred_level1, which is scored as level1'):
        run(metric, samples)
    metric = make_metric(assignment=dict(pred_sem_seg=[0, 1, 2, 3, 0]))
    with pytest.raises(ValueError, match='does not fit a 4 x 4'):
        run(metric, [make_sample(0)])


def test_assignment_of_the_checkpoint() -> None:
    samples = [make_sample(i) for i in range(3)]
    with pytest.raises(ValueError, match='classes of the clusters of pred_sem_seg are not known'):
        run(make_metric(assignment='checkpoint'), samples)
    metric = make_metric(assignment='checkpoint')
    for classes in ([1, 3, 0, 2], [0, 1, 2, 3]):
        for sample in samples:
            sample.set_metainfo(dict(cluster_classes=dict(pred_sem_seg=classes)))
        run(metric, samples)
        assert metric.last_result['probe'].assignment.tolist() == classes


def test_intervals_over_images(messages: list[str]) -> None:
    samples = [make_sample(i, fields=('pred_sem_seg', 'pred_linear')) for i in range(12)]
    metric = make_metric(bootstrap=200)
    scores = run(metric, samples)
    for name in ('probe', 'linear'):
        for figure in ('mIoU', 'aAcc'):
            low, high = scores[f'{name}/{figure}_low'], scores[f'{name}/{figure}_high']
            assert low < scores[f'{name}/{figure}'] < high < low + 20
    assert scores['probe/mIoU'] == expected(samples, 'pred_sem_seg')[0]
    low, high = metric.last_intervals['probe']['mIoU']
    assert any(f'mIoU {scores["probe/mIoU"]:.2f} [{low:.2f}, {high:.2f}]' in text for text in messages)
    assert run(make_metric(bootstrap=200), list(reversed(samples))) == scores
    assert run(make_metric(bootstrap=200, bootstrap_seed=1), samples) != scores


def test_empty_split() -> None:
    with pytest.raises(ValueError, match='the data set is empty.*ann_file'):
        make_metric().evaluate(0)


def test_more_clusters_than_classes() -> None:
    sample = make_sample(0, np.array([[0, 0, 0, 1, 2, 3]]))
    sample.pred_sem_seg.data = torch.tensor([[[4, 4, 3, 1, 2, 0]]])
    for num_clusters in (5, dict(pred_sem_seg=5)):
        metric = make_metric(num_clusters=num_clusters)
        scores = run(metric, [sample])
        assert metric.last_result['probe'].counts.shape == (5, 4)
        assert scores['probe/aAcc'] == pytest.approx(100 * 5 / 6)
    with pytest.raises(ValueError, match=r'photos/000.jpg.*cluster value 4 .*0\.\.3'):
        run(make_metric(), [sample])


def test_no_labels(messages: list[str]) -> None:
    metric = make_metric()
    assert run(metric, [make_sample(i, labelled=False) for i in range(3)]) == {}
    assert metric.last_result == {}
    assert any('no labels: scores are unavailable' in text and '3 images' in text for text in messages)


def test_labels_without_a_labelled_pixel(messages: list[str]) -> None:
    assert run(make_metric(), [make_sample(0, np.full((6, 8), 255))]) == {}
    assert any('no labels: scores are unavailable' in text for text in messages)


def test_some_labels(messages: list[str]) -> None:
    samples = [make_sample(i, labelled=i % 3 == 0) for i in range(7)]
    scores = run(make_metric(), samples)
    assert scores['probe/mIoU'] == expected(samples[::3], 'pred_sem_seg')[0]
    assert any('scores cover 3 images; 4 more have no label' in text for text in messages)


def test_size_mismatch() -> None:
    sample = make_sample(7)
    del sample.pred_sem_seg
    sample.pred_sem_seg = PixelData(data=torch.zeros(1, 3, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r'photos/007.jpg \(label labels/007.png\).*\(3, 4\).*\(6, 8\)'):
        run(make_metric(), [sample])


def test_label_out_of_range() -> None:
    labels = np.zeros((6, 8), int)
    labels[2, 3] = 17
    with pytest.raises(ValueError, match=r'photos/007.jpg \(label labels/007.png\).*label value 17 .*0\.\.3 or 255'):
        run(make_metric(), [make_sample(7, labels)])


def test_none_of_the_fields() -> None:
    with pytest.raises(ValueError, match='pred_other'):
        run(make_metric(heads=dict(pred_other=('other', 'hungarian'))), [make_sample(0)])


def test_no_classes() -> None:
    metric = make_metric()
    metric.dataset_meta = {}
    with pytest.raises(ValueError, match='names no classes'):
        run(metric, [make_sample(0)])


@pytest.mark.parametrize(
    'heads', [{}, dict(a=('x', 'greedy')), dict(a=('x',)), dict(a=('x', 'identity'), b=('x', 'hungarian'))]
)
def test_bad_heads(heads: dict) -> None:
    with pytest.raises(ValueError, match='heads'):
        UnsupervisedIoUMetric(heads=heads)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(matching='greedy'), 'matching must be one of'),
        (dict(absent='zero'), 'absent must be one of'),
        (dict(output='colours'), 'output must be one of'),
        (dict(bootstrap=-1), r'bootstrap must be a whole number in \[0, 100000\]'),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnsupervisedIoUMetric(**options)
