from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from torch import nn

from omh_mmseg.datasets.fingerprint import (
    compare_fingerprints,
    dataset_fingerprint,
    model_fingerprint,
)
from omh_mmseg.datasets.neighbours import index as neighbour_index
from omh_mmseg.datasets.neighbours.index import (
    NeighbourIndex,
    command_to_remake,
    find_index,
    resolve_index_path,
    write_index,
)
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.commands import started_with
from omh_mmseg.utils.digests import weights_digest
from omh_mmseg.utils.files import replaced_when_complete


def test_file_round_trip(tmp_path, monkeypatch):
    neighbours = (np.arange(6)[:, None] + np.arange(4)) % 6  # int64
    monkeypatch.setattr(neighbour_index, 'WRITTEN_ROWS', 4)
    with replaced_when_complete(tmp_path / 'deep' / 'a.npz') as file:
        write_index(file, neighbours, dict(items=6, images='x'))
    loaded = NeighbourIndex.load(tmp_path / 'deep' / 'a.npz')
    np.testing.assert_array_equal(loaded.neighbours, neighbours)
    assert loaded.fingerprint == dict(items=6, images='x')
    with np.load(tmp_path / 'deep' / 'a.npz') as arrays:
        assert arrays['neighbours'].dtype == np.int32
        assert json.loads(str(arrays['fingerprint']))['items'] == 6


@pytest.mark.parametrize('failure', [KeyboardInterrupt, RuntimeError])
def test_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / 'a.npz'
    path.write_bytes(b'old')
    with pytest.raises(failure), replaced_when_complete(path) as file:
        file.write(b'half')
        raise failure
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.npz']
    assert path.read_bytes() == b'old'


def test_load_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='tools/prepare.py neighbours CONFIG'):
        NeighbourIndex.load(tmp_path / 'none.npz')
    (tmp_path / 'text.npz').write_text('no archive')
    with pytest.raises(ValueError, match='text.npz is not a neighbour index or is damaged'):
        NeighbourIndex.load(tmp_path / 'text.npz')
    np.savez(tmp_path / 'other.npz', nns=np.zeros((3, 2)))
    with pytest.raises(ValueError, match='other.npz is not a neighbour index'):
        NeighbourIndex.load(tmp_path / 'other.npz')
    np.savez(tmp_path / 'list.npz', neighbours=np.array([[0, 1], [1, 0]]), fingerprint='[]')
    with pytest.raises(ValueError, match='fingerprint is .*must be a mapping'):
        NeighbourIndex.load(tmp_path / 'list.npz')


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([[0, 1], [1, -1], [2, 0]], r'row 1 .* names an item outside 0\.\.2: \[1, -1\] \(1 of 3 rows do\)'),
        ([[0, 3], [1, 0], [2, 2**40]], r'row 0 .* names an item outside 0\.\.2: \[0, 3\] \(2 of 3 rows do\)'),
        ([[0, 1], [1, 1], [2, 0]], 'row 1 .* has its own item among its neighbours'),
        ([[1, 0], [0, 1]], 'row 0 .* has another item than its own in column 0'),
        ([[0], [1]], r'is \(2, 1\): no item beside each other one'),
        (np.zeros((0, 4), np.int32), r'is \(0, 4\): no item beside each other one'),
        ([[0.0, 1.0], [1.0, 0.0]], 'whole numbers .* got float64'),
        ([[False, True], [True, False]], 'whole numbers .* got bool'),
        ([['0', '1'], ['1', '0']], 'whole numbers .* got <U1'),
        ([0, 1], r'whole numbers \(N, k\) .* got int64 \(2,\)'),
        ([[[0, 1]]], r'whole numbers \(N, k\) .* got int64 \(1, 1, 2\)'),
    ],
)
def test_rows_that_are_no_neighbours_are_refused_at_reading(tmp_path, rows, message):
    np.savez(tmp_path / 'wrong.npz', neighbours=np.asarray(rows), fingerprint='{}')
    with pytest.raises(ValueError, match=rf'wrong\.npz is not a neighbour index or is damaged .*{message}') as caught:
        NeighbourIndex.load(tmp_path / 'wrong.npz')
    assert 'prepare.py neighbours CONFIG --force' in str(caught.value)


def dataset(root, pipeline=({'type': 'LoadImageFromFile'}, {'type': 'ResizeShortSide', 'size': 16}), **options):
    return DATASETS.build(
        dict(type='FolderSegDataset', data_root=str(root), split='train', num_classes=4, pipeline=list(pipeline))
        | options
    )


def test_dataset_fingerprint_follows_what_matters(folder, tmp_path):
    root = folder(count=3)
    first = dataset_fingerprint(dataset(root))
    assert first == dataset_fingerprint(dataset(root, labels='none'))
    load, resize = dict(type='LoadImageFromFile'), dict(type='ResizeShortSide', size=16)
    unrelated = (load, dict(type='LoadOptionalAnnotations'), resize, dict(type='PackSegInputs'))
    assert first == dataset_fingerprint(dataset(root, unrelated))
    root.rename(tmp_path / 'moved')
    root = tmp_path / 'moved'
    assert first == dataset_fingerprint(dataset(root))
    other_size = dataset_fingerprint(dataset(root, (load, resize | dict(size=17))))
    assert compare_fingerprints(first, other_size, ('items', 'images')) == []
    assert 'size=17' in compare_fingerprints(first, other_size, ('pipeline',))[0]
    assert first['images'] != dataset_fingerprint(dataset(root, indices=2))['images']
    (root / 'images' / 'train' / '001.png').rename(root / 'images' / 'train' / '007.png')
    (root / 'labels' / 'train' / '001.png').rename(root / 'labels' / 'train' / '007.png')
    assert first['images'] != dataset_fingerprint(dataset(root))['images']


def test_dataset_fingerprint_sees_replaced_images_and_five_crop(folder):
    root = folder(count=3, labels=False)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='FiveCropPatch')]
    inner = dict(type='FolderSegDataset', data_root=str(root), split='train', num_classes=4, pipeline=pipeline)
    five = dataset_fingerprint(DATASETS.build(dict(type='FiveCrop', dataset=inner)))
    assert five['items'] == 15
    assert five['pipeline'][0] == 'FiveCrop(ratio=0.5)'
    assert five != dataset_fingerprint(DATASETS.build(dict(type='FiveCrop', dataset=inner, ratio=0.7)))
    path = root / 'images' / 'train' / '001.png'
    path.write_bytes(path.read_bytes() + b'longer')
    assert five['images'] != dataset_fingerprint(DATASETS.build(dict(type='FiveCrop', dataset=inner)))['images']


def test_model_fingerprint_follows_weights_and_settings():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    cfg = dict(type='FrozenBackbone', checkpoint='a.pth', backbone=dict(type='X', patch=8, init_cfg=None))
    normalisation = dict(mean=[1, 2, 3], std=[1.0, 1, 1], bgr_to_rgb=True, size_divisor=3)
    first = model_fingerprint(backbone, cfg, normalisation)
    assert first == model_fingerprint(
        backbone, cfg | dict(checkpoint='copied.pth'), normalisation | dict(mean=(1.0, 2.0, 3.0), size_divisor=None)
    )
    patch16 = cfg | dict(backbone=dict(type='X', patch=16))
    assert compare_fingerprints(first, model_fingerprint(backbone, patch16, normalisation), ('weights',)) == []
    assert first['backbone'] != model_fingerprint(backbone, patch16, normalisation)['backbone']
    other_std = model_fingerprint(backbone, cfg, normalisation | dict(std=[2, 1, 1]))
    assert first['normalisation'] != other_std['normalisation']
    with torch.no_grad():
        backbone[1].running_mean[2] += 1e-6
    assert weights_digest(backbone.state_dict()) != first['weights']


def test_index_path_has_one_name_per_images_pipeline_and_model():
    one = dict(items=3, images='abc', pipeline=['Resize(8)'], backbone='{}', weights='12', normalisation='{}')
    pattern = 'data/neighbours/photos_{fingerprint}.npz'
    paths = {resolve_index_path(pattern, one)}
    for part, value in one.items():
        paths.add(resolve_index_path(pattern, one | {part: f'{value} or another'}))
    assert len(paths) == 7
    assert resolve_index_path(pattern, one) == resolve_index_path(pattern, one | dict(train_mode_dropout=0.1))
    assert str(resolve_index_path('plain.npz', one)) == 'plain.npz'


def test_programs_without_a_model_find_any_index_of_their_images(tmp_path):
    one = dict(items=3, images='abc', pipeline=['Resize(8)'], backbone='{}', weights='12', normalisation='{}')
    pattern = str(tmp_path / '[a] b_{fingerprint}.npz')
    with pytest.raises(FileNotFoundError, match=r'(?s)b_\w{8}-\*.npz. Make it with.*prepare.py neighbours'):
        find_index(pattern, one)
    for number, fingerprint in enumerate((one, one | dict(weights='13'), one | dict(items=4))):
        path = resolve_index_path(pattern, fingerprint)
        path.touch()
        os.utime(path, (number, number))
    assert find_index(pattern, one) == resolve_index_path(pattern, one | dict(weights='13'))
    assert str(find_index('plain.npz', one)) == 'plain.npz'


def test_command_to_remake_keeps_the_dropout():
    dropout = dict(train_mode_dropout=dict(probability=0.1, seed=3))
    with started_with('a.py'):
        assert command_to_remake({}).endswith('tools/prepare.py neighbours a.py --force')
        assert command_to_remake(dropout).endswith('a.py --force --train-mode-dropout 0.1 --dropout-seed 3')
    assert 'tools/prepare.py neighbours b.py --force\n' in command_to_remake({}, 'b.py')
