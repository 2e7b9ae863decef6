from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

import omh_mmseg  # noqa: F401
from omh_mmseg.apis import protocols as module
from omh_mmseg.apis.protocols import compare_protocols, protocol_table
from omh_mmseg.registry import MODELS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'omh_stego_vit-t8_demo.py'


@pytest.fixture
def config(tmp_path) -> Iterator[Config]:
    init_default_scope('mmseg')
    config = Config.fromfile(str(CONFIG))
    config.model.backbone.checkpoint = None
    config.model.backbone.backbone.arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
    config.test_dataloader.dataset.update(data_root=str(tmp_path / 'scenes'), counts=dict(train=1, val=3))
    config.model.test_cfg.levels = [1]
    yield config
    DefaultScope._instance_dict.clear()


def test_each_protocol_is_scored_once_and_the_model_stays_as_it_was(config, monkeypatch):
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.train()
    before, computed = config.to_dict(), []
    score = module._score

    def noted(model, scorings) -> None:
        computed.append([scoring.protocol.name for scoring in scorings])
        score(model, scorings)

    monkeypatch.setattr(module, '_score', noted)
    names = ['mmseg', 'stego-64-no-flip', 'hp-64', 'stego-64-no-crf']
    rows = compare_protocols(model, config, names, {'model.test_cfg.levels': []})
    assert [row['protocol']['name'] for row in rows] == names
    assert computed == [['mmseg'], ['stego-64-no-flip', 'stego-64-no-crf']]
    assert rows[1]['scores'] == rows[2]['scores'] != rows[3]['scores']
    assert all(0 <= row['scores']['probe/mIoU'] <= 100 and 'level1/mIoU' not in row['scores'] for row in rows)
    assert config.to_dict() == before
    assert model.training and model.predictor.levels(model) == [1]
    assert model.predictor.crf is None and not model.predictor.options.flip


def test_options_are_put_back_after_an_error(config, monkeypatch):
    model = MODELS.build(config.model)

    def failing(_, scorings) -> None:
        model.predictor = scorings[0].predictor
        assert model.predictor.options.flip
        raise RuntimeError('scoring failed')

    monkeypatch.setattr(module, '_score', failing)
    with pytest.raises(RuntimeError, match='scoring failed'):
        compare_protocols(model, config, ['stego'])
    assert not model.predictor.options.flip


def test_protocols_that_share_the_backbone_score_as_alone(config, monkeypatch):
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    config.test_dataloader.batch_size = 3
    forward, batches = model.backbone.forward, []
    monkeypatch.setattr(model.backbone, 'forward', lambda images: batches.append(len(images)) or forward(images))
    names = ['stego-64-no-crf-no-flip', 'stego-64-no-crf', 'stego-64-no-flip', 'stego-64']
    together = compare_protocols(model, config, names)
    assert batches == [3, 3]  # as they are, and mirrored
    alone = [compare_protocols(model, config, [name])[0] for name in names]
    assert [row['scores'] for row in together] == [row['scores'] for row in alone]
    assert len({row['scores']['probe/mIoU'] for row in together}) == len(names)
    assert all('level1/mIoU' in row['scores'] for row in together)


def test_windows_are_cut_out_of_the_images_beside_other_protocols(config):
    model = MODELS.build(config.model).eval()
    config.test_pipeline = [step for step in config.test_pipeline if step['type'] != 'ResizeShortSide']
    config.test_dataloader.dataset.pipeline = config.test_pipeline
    rows = compare_protocols(model, config, ['mmseg', 'mmseg-slide'], {'model.test_cfg.alpha': 2.0})
    assert rows[0]['scores'].keys() == rows[1]['scores'].keys()


def test_unknown_protocols_are_found_before_anything_is_scored(config, monkeypatch):
    monkeypatch.setattr(module, '_score', lambda *_: pytest.fail('scored'))
    with pytest.raises(ValueError, match="no protocol 'picie'"):
        compare_protocols(MODELS.build(config.model), config, ['stego', 'picie'])


def test_table_lines_up():
    rows = [
        dict(protocol=dict(name='stego', crf=True, flip=True), scores={'probe/mIoU': 20.0, 'probe/NMI': 0.1},
             seconds=2.0),  # fmt: skip
        dict(protocol=dict(name='mmseg', crf=False, flip=False), scores={'level1/aAcc': 5.55}, seconds=10.25),
    ]
    head, first, second = protocol_table(rows).splitlines()
    assert len(head) == len(first) == len(second)
    assert head.split() == ['protocol', 'CRF', 'flip', 'probe/mIoU', 'level1/aAcc', 'seconds']
    assert first.split() == ['stego', 'yes', 'yes', '20.00', '-', '2.0']
    assert second.split() == ['mmseg', 'no', 'no', '-', '5.55', '10.2']
