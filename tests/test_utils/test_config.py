from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from omh_mmseg.utils.config import read_config, replace_settings

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FOLDER, COCO = (str(CONFIGS / f'stego_{name}.py') for name in ('mobilenet-v2_folder', 'vit-s8_coco'))


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(MMLogger, 'warning', lambda _, text: texts.append(text))
    return texts


@pytest.mark.parametrize(
    ('key', 'hint'),
    [
        ('num_class', 'num_classes'),
        ('data_rot', 'data_root'),
        ('batch_size', 'train_dataloader.batch_size or val_dataloader.batch_size'),
        ('max_iters', 'train_cfg.max_iters'),
        ('modle.num_classes', 'model'),
        ('layout', ''),
    ],
)
def test_a_key_that_would_reach_nothing_is_refused(key, hint):
    with pytest.raises(ValueError, match=f'--cfg-options {key}: the config has no {key.split(".")[0]}.*{hint}'):
        read_config(FOLDER, {key: 3})


@pytest.mark.parametrize(
    'key', ['work_dir', 'resume', 'load_from', 'auto_scale_lr.enable', 'custom_hooks', 'sync_bn', 'runner_type']
)
def test_keys_that_mmengine_reads_pass(key):
    config = read_config(FOLDER, {key: 'x'})
    value = config
    for part in key.split('.'):
        value = value[part]
    assert value == 'x'


def test_a_shared_option_needs_no_variable():
    part = dict(type='FolderSegDataset', data_root='a')
    config = replace_settings(Config(dict(val_dataloader=dict(dataset=part))), dict(data_root='b'))
    assert config.val_dataloader.dataset.data_root == 'b'
    with pytest.raises(ValueError, match='the config has no layout'):
        replace_settings(config, dict(layout='mmseg'))


@pytest.mark.parametrize('key', ['load_from.path', 'model.num_classes.more', 'custom_hooks.99'])
def test_a_key_below_a_value_is_refused(key):
    with pytest.raises(ValueError, match=f'--cfg-options {key}: .* below a value that has no options'):
        read_config(FOLDER, {key: 3})


def test_our_configs_give_no_warning(warnings):
    for path in CONFIGS.glob('*.py'):
        read_config(str(path))
    assert warnings == []


def test_a_misspelt_variable_of_a_file_is_told(tmp_path, warnings):
    (tmp_path / 'child.py').write_text(f'_base_ = {FOLDER!r}\nnum_clases = 20\nhelper = 1\n')
    assert read_config(str(tmp_path / 'child.py')).model.num_classes == 11
    (text,) = warnings
    assert 'num_clases reaches nothing; did you mean num_classes?' in text


def test_two_test_pipelines_are_told(warnings):
    read_config(FOLDER, {'test_pipeline': [dict(type='LoadImageFromFile')]})
    (text,) = warnings
    assert 'test_pipeline, which prepares single images, differs from test_dataloader.dataset.pipeline' in text


def test_test_pipeline_takes_a_bare_image(folder):
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope, init_default_scope

    init_default_scope('mmseg')
    path = folder(count=1, size=(60, 90)) / 'images' / 'train' / '000.png'
    for name, shape in ((FOLDER, (240, 352)), (COCO, (320, 320))):
        cfg = Config.fromfile(name)
        assert cfg.test_pipeline[0].type == 'LoadImageFromFile'
        packed = Compose(cfg.test_pipeline)(dict(img_path=str(path)))
        assert packed['inputs'].shape[1:] == shape
        assert packed['data_samples'].ori_shape == (60, 90)
    DefaultScope._instance_dict.clear()
