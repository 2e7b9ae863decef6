"""Predictions of all levels, counted; models with other centres; the analyses as they write their results."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import omh_mmseg  # noqa: F401
from omh_mmseg.analysis import level_scores, part_whole, stability
from omh_mmseg.analysis.level_counts import count_levels, run_names, with_centres
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.structures.labels import IGNORED_LABEL


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


class Oracle:
    """Predicts the finest label of each pixel from the image itself, renumbered by ``shift``; counts its encodings."""

    def __init__(self, shift: int = 0, sizes: tuple[int, ...] = (2, 4)) -> None:
        self.shift, self.encodings = shift, 0
        generator = torch.Generator().manual_seed(shift)
        self.omh_head = SimpleNamespace(
            level_sizes=list(sizes), centres=[torch.rand(size, 4, generator=generator) for size in sizes],
            plan=SimpleNamespace(entropy_weight=0.05, marginal='uniform'),
        )  # fmt: skip
        self.cluster_probe = SimpleNamespace(centres=torch.zeros(3, 1))

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        return dict(inputs=torch.stack(batch['inputs']), data_samples=batch['data_samples'])

    def prediction_code(self, inputs: torch.Tensor) -> torch.Tensor:
        self.encodings += 1
        return inputs

    def predict_from_code(self, code: torch.Tensor, inputs: torch.Tensor, samples: list) -> list:
        for one, sample in zip(code.long(), samples):
            finest = (one + self.shift) % 4
            sample.pred_sem_seg = PixelData(data=torch.zeros_like(one))
            for level, size in enumerate(self.omh_head.level_sizes, start=1):
                setattr(sample, f'pred_level{level}', PixelData(data=finest * size // 4))
        return samples


def batches(labels: list[np.ndarray | None]) -> list[dict]:
    """One batch: images whose pixels hold 0, 1, 2, 3 in turn, with labels or without."""
    samples = []
    for label in labels:
        samples.append(SegDataSample())
        if label is not None:
            samples[-1].gt_sem_seg = PixelData(data=torch.from_numpy(label)[None])
    return [dict(inputs=[torch.arange(8.0).reshape(1, 2, 4) % 4 for _ in labels], data_samples=samples)]


def test_counts_of_known_predictions():
    label = np.array([[0, 1, 2, 3], [0, 1, 2, IGNORED_LABEL]])
    first, second = Oracle(), Oracle(shift=1)
    counted = count_levels([[first], [second]], batches([label, label]), 4, between=True)
    np.testing.assert_array_equal(counted.models[0].counts[1], np.diag([4, 4, 4, 2]))
    np.testing.assert_array_equal(counted.models[0].counts[0], [[4, 4, 0, 0], [0, 0, 4, 2]])
    np.testing.assert_array_equal(counted.models[0].overlaps[0], [[4, 4, 0, 0], [0, 0, 4, 2]])
    np.testing.assert_array_equal(counted.models[0].probe, [[4, 4, 4, 2], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(counted.models[1].counts[1], np.roll(np.diag([4, 4, 4, 2]), 1, axis=0))
    np.testing.assert_array_equal(counted.joint[0, 1][1], np.roll(np.diag([4, 4, 4, 2]), 1, axis=1))
    assert list(counted.models[0].heads) == ['probe', 'level1', 'level2']


def test_images_without_labels_count_in_overlaps_alone():
    counted = count_levels([[Oracle()], [Oracle()]], batches([None]), 4, between=True)
    assert not any(level.any() for level in counted.models[0].heads.values())
    np.testing.assert_array_equal(counted.models[0].overlaps[0], [[2, 2, 0, 0], [0, 0, 2, 2]])
    np.testing.assert_array_equal(counted.joint[0, 1][0], np.diag([4, 4]))


def test_models_of_a_group_share_their_code():
    groups = [[Oracle()], [Oracle(shift=1, sizes=(1, 2, 4)), Oracle(shift=2)]]
    counted = count_levels(groups, batches([np.zeros((2, 4), int)]), 4)
    assert [[model.encodings for model in group] for group in groups] == [[1], [1, 0]]
    assert [len(own.counts) for own in counted.models] == [2, 3, 2] and not counted.joint
    assert all(level.sum() == 8 for own in counted.models for level in own.counts)


def test_models_that_do_not_compare():
    with pytest.raises(ValueError, match=r'different numbers of levels do not compare: \[\[2, 4\], \[2, 3, 4\]\]'):
        count_levels([[Oracle()], [Oracle(sizes=(2, 3, 4))]], [], 4, between=True)
    without = Oracle()
    without.omh_head = None
    with pytest.raises(ValueError, match='every model needs an OMH head'):
        count_levels([[without]], [], 4)


def test_short_names_of_runs(tmp_path):
    assert run_names(['a/seed_0/iter_3.pth', 'b/seed_1/iter_3.pth']) == ['seed_0', 'seed_1']
    assert run_names(['a/seed_0/iter_3.pth', 'a/seed_0/iter_6.pth']) == ['seed_0/iter_3', 'seed_0/iter_6']
    assert run_names(['a/s/i.pth', 'b/s/i.pth']) == ['a/s/i.pth', 'b/s/i.pth']


@pytest.mark.parametrize('head', [None, dict(type='OMHHead')])
def test_other_centres_leave_the_model_alone(head):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    backbone = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48),
        img_size=32, patch_size=8, out_type='featmap',
    )  # fmt: skip
    loss = dict(
        type='STEGOCorrelationLoss', self_weight=1, self_shift=0.1, knn_weight=1, knn_shift=0.1, rand_weight=1,
        rand_shift=0.5,
    )  # fmt: skip
    model = MODELS.build(
        dict(
            type='STEGO', num_classes=2, data_preprocessor=dict(type='ViewsDataPreprocessor'),
            backbone=dict(type='FrozenBackbone', backbone=backbone),
            decode_head=dict(type='ProjectionHead', channels=3),
            cluster_probe=dict(type='ClusterProbe'), correlation_loss=loss, omh_head=head, test_cfg=dict(levels=[]),
        )
    ).eval()  # fmt: skip
    DefaultScope._instance_dict.clear()
    centres = [torch.eye(3)[:2], torch.eye(3)]
    before = model.omh_head
    variant = with_centres(model, centres, 0.02)
    assert model.omh_head is before and variant.backbone is model.backbone
    assert variant.omh_head.level_sizes == [2, 3] and variant.omh_head.plan.entropy_weight == 0.02
    code = torch.eye(3)[None, :, :, None] + 0.1  # position p points along axis p
    (sample,) = variant.predict_from_code(code, torch.zeros(1, 3, 3, 1), [SegDataSample()])
    assert sample.pred_level2.data.flatten().tolist() == [0, 1, 2]
    assert not hasattr(model.predict_from_code(code, torch.zeros(1, 3, 3, 1), [SegDataSample()])[0], 'pred_level2')


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images with four labels in two halves; a checkpoint's name is the shift of its oracle's numbers."""
    label = np.array([[0, 1, 2, 3], [0, 1, 2, IGNORED_LABEL]])
    labels = (
        Granularity('half', ('left', 'right'), np.array([0, 0, 1, 1])),
        Granularity('quarter', ('a', 'b', 'c', 'd'), np.arange(4)),
    )
    for topic in (level_scores, part_whole, stability):
        monkeypatch.setattr(topic, 'labelled_loader', lambda *_: (batches([label, label]), labels))
        monkeypatch.setattr(topic, 'load_levels', lambda config, checkpoint, device: Oracle(int(checkpoint)))
        monkeypatch.setattr(topic, 'run_names', lambda names: [f'run {name}' for name in names], raising=False)


def test_scores_are_written(analysed, tmp_path: Path):
    said = level_scores.analyse_scores(None, ['0', '2'], tmp_path)
    rows = {(row['run'], row['head'], row['labels']): row for row in read_csv(tmp_path / 'scores.csv')}
    assert float(rows['run 0', 'level2', 'quarter']['mIoU']) == float(rows['run 2', 'level1', 'half']['mIoU']) == 100
    assert rows['run 0', 'level1', 'quarter']['mIoU'] == ''
    assert '100.00 +- 0.00' in said and (tmp_path / 'level_scores.md').read_text().startswith('| head')
    assert (tmp_path / 'level_scores.png').is_file()


def test_stability_is_written(analysed, tmp_path: Path):
    said = stability.analyse_stability(None, ['0', '2', '0'], tmp_path, permutations=9)
    clusters = read_csv(tmp_path / 'clusters.csv')
    assert [(row['first'], row['second']) for row in clusters[::2]] == [
        ('run 0', 'run 2'), ('run 0', 'run 0'), ('run 2', 'run 0')
    ]  # fmt: skip
    assert all(float(row['ari']) == 1 for row in clusters)
    matches = [row for row in read_csv(tmp_path / 'matches.csv') if row['level'] == '2'][:4]
    assert [(row['cluster'], row['partner']) for row in matches] == [('0', '2'), ('1', '3'), ('2', '0'), ('3', '1')]
    parents = read_csv(tmp_path / 'parents.csv')
    assert [(row['marginals'], row['levels']) for row in parents] == [('usage', '1-2'), ('uniform', '1-2')] * 3
    # The third run is the first one again.
    assert [float(row['agreement']) for row in parents[2:4]] == [1, 1]
    assert '| usage ' in said and '| uniform ' in said
    assert ' pairs |' in said and (tmp_path / 'stability.png').is_file()
    with pytest.raises(ValueError, match='two checkpoints at least'):
        stability.analyse_stability(None, ['0'], tmp_path)


def test_parts_are_written(analysed, tmp_path: Path):
    said = part_whole.analyse_parts(None, '1', tmp_path)
    rows = [row for row in read_csv(tmp_path / 'clusters.csv') if row['level'] == '2']
    assert [row['class'] for row in rows] == ['d', 'a', 'b', 'c'] and all(float(row['purity']) == 1 for row in rows)
    assert '1* 100%' in said
    assert all((tmp_path / name).is_file() for name in ('part_whole.md', 'part_whole.png', 'tree.png', 'classes.csv'))
    part_whole.analyse_parts(None, '1', tmp_path, labels='half')
    assert {row['class'] for row in read_csv(tmp_path / 'clusters.csv')} == {'left', 'right'}
    with pytest.raises(ValueError, match=r"--labels must be one of \['half', 'quarter'\]; got 'third'"):
        part_whole.analyse_parts(None, '1', tmp_path, labels='third')
