from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from omh_mmseg.utils.config import apply_shared_options

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FOLDER, COCO = 'stego_mobilenet-v2_folder', 'stego_vit-s8_coco'


def load(name: str, options: dict) -> Config:
    cfg = Config.fromfile(str(CONFIGS / f'{name}.py'))
    cfg.merge_from_dict(options)
    return apply_shared_options(cfg, options)


def roots(cfg: Config) -> list[str]:
    inner = cfg.train_dataloader.dataset.dataset
    inner = inner.get('dataset', inner)
    return [inner.data_root, cfg.val_dataloader.dataset.data_root, cfg.test_dataloader.dataset.data_root]


@pytest.mark.parametrize('name', [FOLDER, COCO])
def test_one_key_moves_every_data_set(name):
    cfg = load(name, dict(data_root='/my/photos'))
    assert roots(cfg) == ['/my/photos'] * 3
    assert cfg.model.num_classes == load(name, {}).num_classes


def test_number_of_classes_reaches_model_and_data():
    cfg = load(FOLDER, dict(num_classes=20))
    assert cfg.model.num_classes == 20
    assert cfg.train_dataloader.dataset.dataset.num_classes == 20
    assert cfg.val_dataloader.dataset.num_classes == 20


def test_layout_and_lists_reach_their_data_sets():
    cfg = load(COCO, dict(layout='mmseg', train_list='Coco164kFull_Stuff_Coarse_7.txt', val_list=''))
    train = cfg.train_dataloader.dataset.dataset.dataset
    assert (train.layout, train.ann_file) == ('mmseg', 'Coco164kFull_Stuff_Coarse_7.txt')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert (loader.dataset.layout, loader.dataset.ann_file) == ('mmseg', '')


def test_keys_that_a_data_set_does_not_have_are_not_added():
    assert 'num_classes' not in load(COCO, dict(num_classes=30)).val_dataloader.dataset


def test_long_keys_and_unrelated_options_stay():
    cfg = load(FOLDER, {'val_dataloader.dataset.data_root': '/val', 'randomness': dict(seed=1)})
    assert roots(cfg) == ['data/folder', '/val', 'data/folder']


def test_environment_is_the_other_way(monkeypatch):
    monkeypatch.setenv('OMH_DATA_ROOT', '/from/environment')
    monkeypatch.setenv('OMH_NUM_CLASSES', '7')
    cfg = Config.fromfile(str(CONFIGS / f'{FOLDER}.py'))
    assert roots(cfg) == ['/from/environment'] * 3
    assert cfg.num_classes == cfg.val_dataloader.dataset.num_classes == 7


def test_concatenated_data_sets():
    part = dict(type='FolderSegDataset', data_root='a', num_classes=2)
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[part, dict(part)]))))
    apply_shared_options(cfg, dict(data_root='b'))
    assert [entry.data_root for entry in cfg.train_dataloader.dataset.datasets] == ['b', 'b']


def test_test_pipeline_takes_a_bare_image(folder):
    from mmengine.dataset import Compose

    path = folder(count=1, size=(60, 90)) / 'images' / 'train' / '000.png'
    for name, shape in ((FOLDER, (240, 352)), (COCO, (320, 320))):
        cfg = Config.fromfile(str(CONFIGS / f'{name}.py'))
        assert cfg.test_pipeline[0].type == 'LoadImageFromFile'
        packed = Compose(cfg.test_pipeline)(dict(img_path=str(path)))
        assert packed['inputs'].shape[1:] == shape
        assert packed['data_samples'].ori_shape == (60, 90)
