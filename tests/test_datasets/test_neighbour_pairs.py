from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from omh_mmseg.datasets import NeighbourPairs
from omh_mmseg.datasets.fingerprint import dataset_fingerprint
from omh_mmseg.datasets.neighbours.index import NeighbourIndex, write_index
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.files import replaced_when_complete

PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]


def wrapped(root: Path, **options) -> dict:
    return dict(
        type='FolderSegDataset', data_root=str(root), split='train', num_classes=4, pipeline=PIPELINE
    ) | options


def ring(items: int, columns: int) -> np.ndarray:
    """Neighbour r of item i is item i + r."""
    return (np.arange(items)[:, None] + np.arange(columns)).astype(np.int32) % items


@pytest.fixture
def pairs(folder, tmp_path):
    def make(count: int = 10, columns: int = 8, labels: bool = True, **options) -> dict:
        root = folder(count=count, labels=labels)
        index = NeighbourIndex(ring(count, columns), dataset_fingerprint(DATASETS.build(wrapped(root))))
        with replaced_when_complete(tmp_path / 'index.npz') as file:
            write_index(file, index.neighbours, index.fingerprint)
        return dict(type='NeighbourPairs', index=str(tmp_path / 'index.npz'), dataset=wrapped(root)) | options

    return make


def test_item_is_a_pair_with_the_anchors_label(pairs):
    data = DATASETS.build(pairs())
    plain = data.dataset
    item = data[4]
    assert set(item['inputs']) == {'anchor', 'neighbour'}
    torch.testing.assert_close(item['inputs']['anchor'], plain[4]['inputs'])
    sample = item['data_samples']
    assert sample.neighbour_item in {5, 6, 7, 8, 9, 0, 1}
    torch.testing.assert_close(item['inputs']['neighbour'], plain[sample.neighbour_item]['inputs'])
    torch.testing.assert_close(sample.gt_sem_seg.data, plain[4]['data_samples'].gt_sem_seg.data)
    assert sample.img_path == plain[4]['data_samples'].img_path
    assert sample.ori_shape == sample.img_shape == (40, 60)


def test_ranks_are_uniform_and_come_from_torch(pairs):
    data = DATASETS.build(pairs(num_neighbours=3))
    torch.manual_seed(5)
    drawn = [data[0]['data_samples'].neighbour_item for _ in range(120)]
    torch.manual_seed(5)
    assert drawn == [data[0]['data_samples'].neighbour_item for _ in range(120)]
    counts = Counter(drawn)
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 20


def test_batch_through_mmengines_loader(pairs):
    loader = dict(
        batch_size=3, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=pairs(labels=False)
    )
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    assert [len(batch['inputs'][name]) for name in ('anchor', 'neighbour')] == [3, 3]
    assert all('gt_sem_seg' not in sample for sample in batch['data_samples'])


def test_wrapper_contract(pairs):
    config = pairs()
    data = NeighbourPairs(config['dataset'], config['index'], lazy_init=True)
    assert not hasattr(data, 'fingerprint')
    assert data.metainfo['classes'][0] == 'class_0'
    assert len(data) == 10
    assert data.index_path == Path(config['index'])
    assert data.get_data_info(3)['img_path'].endswith('003.png')
    assert len(list(data)) == 10
    assert pseudo_collate([data[0]])['inputs']['anchor'][0].shape == (3, 40, 60)


def test_tools_that_expect_one_image_see_the_anchor(pairs):
    item = DATASETS.build(pairs())[2]
    torch.testing.assert_close(item['inputs'].permute(1, 2, 0), item['inputs']['anchor'].permute(1, 2, 0))


def test_missing_index_names_the_command(pairs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none.npz. Make it with\s+python \S*/prepare.py neighbours CONFIG'):
        DATASETS.build(pairs(index=str(tmp_path / 'none.npz')))[0]


def test_index_of_other_images_or_pipeline(pairs, folder):
    config = pairs()
    with pytest.raises(ValueError, match='items: the index has 10, this run has 4'):
        DATASETS.build(config | dict(dataset=config['dataset'] | dict(indices=4)))
    smaller = [*PIPELINE[:2], dict(type='ResizeShortSide', size=20), PIPELINE[2]]
    with pytest.raises(ValueError, match=r'(?s)another pipeline:\s+pipeline: .*ResizeShortSide\(size=20.*--force'):
        DATASETS.build(config | dict(dataset=config['dataset'] | dict(pipeline=smaller)))
    other = folder(count=10, name='other', suffix='.bmp')
    with pytest.raises(ValueError, match='images: the index has'):
        DATASETS.build(config | dict(dataset=wrapped(other)))


def test_index_with_fewer_rows(pairs, tmp_path):
    config = pairs()
    index = NeighbourIndex.load(config['index'])
    with replaced_when_complete(config['index']) as file:
        write_index(file, (np.arange(7)[:, None] + np.arange(5)) % 7, index.fingerprint)
    with pytest.raises(ValueError, match='7 rows for 10 items'):
        DATASETS.build(config)


def test_too_few_columns(pairs):
    with pytest.raises(ValueError, match='(?s)num_neighbours=7, but the index .* holds 4 .*--num-neighbours 8'):
        DATASETS.build(pairs(columns=5))
    with pytest.raises(ValueError, match='num_neighbours must be .*; got 0'):
        DATASETS.build(pairs(num_neighbours=0))


def test_tiny_folder_uses_every_other_item(pairs):
    with pytest.warns(UserWarning, match='num_neighbours=7, but the data set has 3 items'):
        data = DATASETS.build(pairs(count=3, columns=3))
    assert {data[0]['data_samples'].neighbour_item for _ in range(30)} == {1, 2}
