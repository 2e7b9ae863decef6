from __future__ import annotations

from omh_mmseg.utils.dataset_configs import find_dataset, innermost_datasets, nested_datasets

PLAIN = dict(type='FolderSegDataset', data_root='a')
WRAPPED = dict(type='NeighbourPairs', dataset=dict(type='omh_mmseg.FiveCrop', dataset=PLAIN))
JOINED = dict(type='ConcatDataset', datasets=[PLAIN, WRAPPED])


def test_wrappers_come_before_what_they_wrap():
    keys = [key for key, _ in nested_datasets(JOINED, 'train_dataloader.dataset')]
    start = 'train_dataloader.dataset'
    assert keys == [
        start, f'{start}.datasets.0', f'{start}.datasets.1', f'{start}.datasets.1.dataset',
        f'{start}.datasets.1.dataset.dataset',
    ]  # fmt: skip


def test_innermost():
    assert innermost_datasets(PLAIN) == {'': PLAIN}
    assert innermost_datasets(WRAPPED) == {'dataset.dataset': PLAIN}
    assert list(innermost_datasets(JOINED)) == ['datasets.0', 'datasets.1.dataset.dataset']
    assert all(dataset is PLAIN for dataset in innermost_datasets(JOINED).values())
    assert innermost_datasets(None) == {}


def test_find_by_type():
    assert find_dataset(WRAPPED, 'FiveCrop') is WRAPPED['dataset']
    assert find_dataset(JOINED, 'NeighbourPairs') is WRAPPED
    assert find_dataset(PLAIN, 'FiveCrop') is None and find_dataset(None, 'FiveCrop') is None
