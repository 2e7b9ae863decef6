"""One setting at the top level of a config reaches every part, or is refused by full keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from omh_mmseg.utils.config import read_config
from omh_mmseg.utils.shared_options import (
    apply_shared_options,
    check_shared_options,
    outdated_parts,
    shared_parts,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FOLDER, COCO, DEMO = (
    str(CONFIGS / f'stego_{name}.py') for name in ('mobilenet-v2_folder', 'vit-s8_coco', 'vit-t8_demo')
)
TRAIN = 'train_dataloader.dataset.dataset'


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ('OMH_DATA_ROOT', 'OMH_NUM_CLASSES'):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def child(tmp_path):
    """Write a config on top of another one, and return its path."""

    def write(text: str, base: str = FOLDER, name: str = 'child.py') -> str:
        path = tmp_path / name
        path.write_text(f'_base_ = {base!r}\n{text}\n')
        return str(path)

    return write


def roots(config: Config) -> list[str]:
    return list(shared_parts(config, 'data_root').values())


def classes(config: Config) -> list[int]:
    return list(shared_parts(config, 'num_classes').values())


# ---- what labels hold


@pytest.mark.parametrize('value', [[0, 255], {0: 0, 255: 1}])
def test_a_map_of_labels_reaches_every_data_set(child, tmp_path, value):
    config = read_config(child(f'label_map = {value!r}'))
    assert list(shared_parts(config, 'label_map').values()) == [value] * 3
    config.dump(tmp_path / 'dumped.py')
    assert list(shared_parts(read_config(str(tmp_path / 'dumped.py')), 'label_map').values()) == [value] * 3
    if isinstance(value, list):
        config = read_config(FOLDER, dict(label_map=value, seg_map_suffix='_mask.png', val_list='val.txt'))
        assert list(shared_parts(config, 'label_map').values()) == [value] * 3
        assert list(shared_parts(config, 'seg_map_suffix').values()) == ['_mask.png'] * 3
        assert config.test_dataloader.dataset.ann_file == 'val.txt'
        assert config.train_dataloader.dataset.dataset.ann_file == ''


# ---- on our command line


@pytest.mark.parametrize('path', [FOLDER, COCO])
def test_one_key_moves_every_data_set(path):
    config = read_config(path, dict(data_root='/my/photos'))
    assert roots(config) == ['/my/photos'] * 3
    assert config.model.num_classes == read_config(path).model.num_classes


def test_number_of_classes_reaches_model_and_data():
    assert classes(read_config(FOLDER, dict(num_classes=20))) == [20] * 4
    assert classes(read_config(COCO, dict(num_classes=30))) == [30]


def test_layout_level_and_lists_reach_their_data_sets():
    config = read_config(COCO, dict(layout='mmseg', train_list='Coco164kFull_Stuff_Coarse_7.txt', val_list=''))
    assert set(shared_parts(config, 'layout').values()) == {'mmseg'}
    assert set(shared_parts(config, 'train_list').values()) == {'Coco164kFull_Stuff_Coarse_7.txt'}
    assert list(shared_parts(config, 'val_list').values()) == ['', '']
    config = read_config(DEMO, dict(level='object', num_classes=12))
    assert set(shared_parts(config, 'level').values()) == {'object'} and config.model.num_classes == 12


def test_full_keys_beside_it_win():
    options = {'data_root': '/my', 'val_dataloader.dataset.data_root': '/val', 'model': dict(num_classes=7)}
    config = read_config(FOLDER, options | {'num_classes': 20, 'test_dataloader.dataset.data_root': 'data/folder'})
    assert roots(config) == ['/my', '/val', 'data/folder']
    assert config.model.num_classes == 7 and config.val_dataloader.dataset.num_classes == 20


def test_full_keys_and_unrelated_options_stay():
    config = read_config(FOLDER, {'val_dataloader.dataset.data_root': '/val', 'randomness': dict(seed=1)})
    assert roots(config) == ['data/folder', '/val', 'data/folder']
    check_shared_options(config)


def test_command_line_wins_over_the_file(child):
    path = child("data_root = '/file'\nval_dataloader = dict(dataset=dict(data_root='/val'))")
    assert roots(read_config(path, dict(data_root='/line'))) == ['/line'] * 3


# ---- in a config of one's own


def test_child_config(child):
    config = read_config(child("data_root = '/my/photos'\nnum_classes = 20"))
    assert roots(config) == ['/my/photos'] * 3 and classes(config) == [20] * 4
    check_shared_options(config)


def test_full_keys_in_the_file_win(child):
    config = read_config(child("data_root = '/my'\nval_dataloader = dict(dataset=dict(data_root='/val'))"))
    assert roots(config) == ['/my', '/val', '/my']
    config = read_config(child('num_classes = 20\nmodel = dict(num_classes=40)'))
    assert config.model.num_classes == 40 and config.val_dataloader.dataset.num_classes == 20


def test_full_keys_alone_are_no_contradiction(child):
    text = 'model = dict(num_classes=40)\ntrain_dataloader = dict(dataset=dict(dataset=dict(data_root="/x")))'
    config = Config.fromfile(child(text))
    check_shared_options(config)
    assert roots(apply_shared_options(config)) == ['/x', 'data/folder', 'data/folder']


def test_child_of_a_child(child):
    first = child("data_root = '/one'\nnum_classes = 5")
    config = read_config(child("data_root = '/two'", first, 'second.py'))
    assert roots(config) == ['/two'] * 3 and classes(config) == [5] * 4


def test_what_a_run_writes_is_read_again(child, tmp_path):
    read_config(child("data_root = '/my'")).dump(tmp_path / 'dumped.py')
    assert roots(read_config(str(tmp_path / 'dumped.py'))) == ['/my'] * 3
    config = read_config(child("data_root = '/other'", str(tmp_path / 'dumped.py'), 'next.py'))
    assert roots(config) == ['/other'] * 3


def test_environment(child, monkeypatch):
    monkeypatch.setenv('OMH_DATA_ROOT', '/from/environment')
    monkeypatch.setenv('OMH_NUM_CLASSES', '7')
    config = Config.fromfile(FOLDER)
    assert roots(config) == ['/from/environment'] * 3 and classes(config) == [7] * 4
    check_shared_options(config)
    assert roots(read_config(child("data_root = '/my'"))) == ['/my'] * 3


# ---- in the tools of mmseg


def test_what_others_do_not_pass_on_is_refused_by_full_keys(child):
    config = Config.fromfile(child('num_classes = 20'))
    keys = [f'{TRAIN}.num_classes', *(f'{loader}_dataloader.dataset.num_classes' for loader in ('val', 'test'))]
    assert outdated_parts(config) == {'num_classes': dict.fromkeys([*keys, 'model.num_classes'], 20)}
    text = ' '.join(f'{key}=20' for key in [*keys, 'model.num_classes'])
    with pytest.raises(ValueError, match=f'num_classes at the top level .* cannot reach all parts here.*: {text}$'):
        check_shared_options(config)
    config.merge_from_dict(outdated_parts(config)['num_classes'])
    check_shared_options(config)


def test_a_model_with_test_time_augmentation():
    config = Config.fromfile(FOLDER)
    config.merge_from_dict(dict(num_classes=20))
    config.tta_model.module = config.model
    config.model = config.tta_model
    with pytest.raises(ValueError, match=r'model\.module\.num_classes=20'):
        check_shared_options(config)


def test_what_reaches_nothing_is_refused(child):
    parts = ['train_dataloader.dataset.dataset', 'val_dataloader.dataset', 'test_dataloader.dataset']
    config = Config.fromfile(child("data_root = '/my'"))
    config.merge_from_dict({f'{part}.data_root': '/x' for part in parts})
    for check in (check_shared_options, apply_shared_options):
        with pytest.raises(ValueError, match="data_root='/my' reaches nothing: train_dataloader.*data_root='/x', val_"):
            check(config)


# ---- configs of other projects, without a note of what was copied


def test_without_a_note_only_the_command_line_is_later():
    part = dict(type='FolderSegDataset', data_root='a', num_classes=2)
    config = Config(dict(
        data_root='top', train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[part, dict(part)]))
    ))  # fmt: skip
    check_shared_options(config)
    assert roots(apply_shared_options(config)) == ['a', 'a']
    config.merge_from_dict(dict(data_root='b'))
    assert roots(apply_shared_options(config, dict(data_root='b'))) == ['b', 'b']
