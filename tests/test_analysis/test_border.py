"""Clusters of the border: what the command writes, and on photos with weights that want another padding."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from omh_mmseg.analysis import border
from omh_mmseg.evaluation.border import BorderCounts
from omh_mmseg.models.utils.k_means import fit_centres
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.utils.config import read_config

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'stego_mobilenet-v2_folder.py'


class Columns:
    """Two clusters in stripes and, at the left and right of the finer level, a third."""

    assignment = SimpleNamespace(sizes=dict(pred_sem_seg=2, pred_level1=3))
    backbone = SimpleNamespace(stride=8)

    def data_preprocessor(self, batch: list, training: bool) -> dict:
        return dict(inputs=None, data_samples=batch)

    def predict(self, inputs: None, samples: list[SegDataSample]) -> list[SegDataSample]:
        for number, sample in enumerate(samples):
            labels = (torch.arange(64)[:, None] + torch.arange(96) + 5 * number) // 16 % 2
            sample.pred_sem_seg = PixelData(data=labels[None].clone())
            labels[:, :8] = labels[:, -8:] = 2
            sample.pred_level1 = PixelData(data=labels[None])
        return samples


def test_findings_and_all_shares_are_written(monkeypatch, tmp_path):
    loader = [[SegDataSample(metainfo=dict(img_shape=(64, 96))) for _ in range(8)]]
    monkeypatch.setattr(border, 'labelled_loader', lambda *_: (loader, ()))
    monkeypatch.setattr(border, 'load_levels', lambda *_: Columns())
    said = border.analyse_border(None, ['a/seed0/iter_1.pth'], tmp_path)
    assert 'seed0: Clusters live on the border of the image: level1, cluster 2: 100% of' in said
    assert (tmp_path / 'border.md').read_text().rstrip() in said
    with open(tmp_path / 'border.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * (2 + 3)
    (left,) = (row for row in rows if (row['clustering'], row['cluster'], row['side']) == ('level1', '2', 'left'))
    assert (float(left['line_1']), float(left['line_2'])) == (1, 0) and float(left['all']) == pytest.approx(2 / 12)


@pytest.mark.slow
def test_padding_of_the_shared_weights(shared_dir, mmseg_scope):
    """MobileNetV2 trained with TensorFlow's 'same' padding, on street photos with the sky at the top."""
    weights, photos = shared_dir / 'weights' / 'mobilenet_v2_imagenet_mmpretrain.pth', shared_dir / 'data' / 'camvid'
    if not (weights.is_file() and photos.is_dir()):
        pytest.skip('the shared weights or photos are absent')
    options = {
        'data_root': str(photos), 'num_classes': 11, 'model.backbone.checkpoint': str(weights),
        'model.data_preprocessor.mean': [127.5] * 3, 'model.data_preprocessor.std': [127.5] * 3,
    }  # fmt: skip
    right = {'model.backbone.backbone.conv_cfg.type': 'Conv2dAdaptivePadding'}
    sides = []
    for padding in ({}, right):
        config = read_config(str(CONFIG), {**options, **padding})
        model = MODELS.build(config.model).eval()
        model.backbone.init_weights()
        dataset = DATASETS.build(config.val_dataloader.dataset)
        maps = []
        for item in range(0, len(dataset), 3):
            inputs = model.data_preprocessor(pseudo_collate([dataset[item]]), False)['inputs']
            maps.append(F.normalize(model.extract_feat(inputs), dim=1)[0].permute(1, 2, 0))
        centres = fit_centres(torch.cat([one.flatten(0, 1) for one in maps]).numpy()[::2], 11, 0)
        counts = BorderCounts(dict(pred_sem_seg=11), 16)
        for one in maps:
            counts.add_grid('pred_sem_seg', torch.cdist(one.flatten(0, 1), centres).argmin(1).view(15, 20).numpy())
        counts.images = len(maps)
        sides.append({found.side for found in counts.border_clusters('pred_sem_seg')})
    assert sides[0] >= {'top', 'left'} and sides[1] == set()
