"""Labels of several granularities: the tables of the published sets, groups of one's own, merged counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmseg.datasets import COCOStuffDataset

from omh_mmseg.datasets import Cityscapes27, COCOStuff27, DemoScenes, Potsdam3
from omh_mmseg.datasets.granularity import finest_labels, read_groups
from omh_mmseg.datasets.scenes import HIERARCHY
from omh_mmseg.structures.granularity import Granularity, granularity_of_levels


def test_tables_of_the_published_sets():
    classes, leaves = COCOStuff27.GRANULARITIES
    assert (len(classes.classes), len(leaves.classes)) == (27, 171)
    of = dict(zip(COCOStuffDataset.METAINFO['classes'], classes.table.tolist(), strict=True))
    assert {name: classes.classes[of[name]] for name in ('person', 'zebra', 'grass', 'wall-wood', 'sea')} == dict(
        zip(('person', 'zebra', 'grass', 'wall-wood', 'sea'), ('person', 'animal', 'plant', 'wall', 'water'))
    )
    assert set(classes.table.tolist()) == set(range(27))
    categories, classes = Cityscapes27.GRANULARITIES
    assert categories.classes == ('flat', 'construction', 'object', 'nature', 'sky', 'human', 'vehicle')
    assert np.bincount(categories.table).tolist() == [4, 6, 4, 2, 1, 2, 8]
    assert categories.classes[categories.table[classes.classes.index('rider')]] == 'human'
    merged, surfaces = Potsdam3.GRANULARITIES
    assert [surfaces.classes[n] for n in np.flatnonzero(merged.table == 2)] == ['low vegetation', 'tree']
    assert [one.name for one in DemoScenes.GRANULARITIES] == ['group', 'object', 'part']


def test_parents_are_those_of_the_tree():
    group, thing, part = DemoScenes.GRANULARITIES
    np.testing.assert_array_equal(part.parents_in(thing), HIERARCHY.object_of_part)
    np.testing.assert_array_equal(thing.parents_in(group), HIERARCHY.group_of_object)
    np.testing.assert_array_equal(thing.parents_in(thing), np.arange(12))
    with pytest.raises(ValueError, match="'house' of 'object' lies in 3 classes of 'part'"):
        thing.parents_in(part)
    with pytest.raises(ValueError, match="'b' of 'finest' lies in 0 classes of 'coarse'"):
        Granularity('finest', ('a', 'b'), np.arange(2)).parents_in(Granularity('coarse', ('x',), np.array([0, 255])))


@given(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=8), st.integers(1, 4))
def test_merged_counts_keep_every_pixel_with_a_class(table, clusters):
    counts = np.random.default_rng(0).integers(0, 100, (clusters, len(table)))
    merged = Granularity('x', ('a', 'b', 'c'), np.array(table)).merge(counts)
    for number in range(3):
        np.testing.assert_array_equal(merged[:, number], counts[:, np.array(table) == number].sum(1))


def test_tables_must_fit_the_names():
    with pytest.raises(ValueError, match=r'must hold classes in 0..1, or 255 for none; got \[0, 2\]'):
        Granularity('x', ('a', 'b'), np.array([0, 2]))


def test_finest_labels_of_a_set_that_has_levels(tmp_path: Path):
    given_config = dict(type='DemoScenes', level='group', metainfo=dict(classes=['sky']), split='val')
    config, granularities = finest_labels(given_config)
    assert config == dict(type='DemoScenes', level='part', metainfo=None, split='val')
    assert granularities == DemoScenes.GRANULARITIES
    assert given_config['level'] == 'group'


def test_groups_of_ones_own(folder, tmp_path: Path):
    groups = tmp_path / 'groups.json'
    groups.write_text(json.dumps({'two': {'a': ['class_0', 'class_2'], 'b': ['class_1']}}))
    dataset = dict(type='FolderSegDataset', data_root=str(folder()), split='train', num_classes=4, pipeline=['unread'])
    config, (two, own) = finest_labels(dataset, groups)
    assert config == dataset
    assert (two.name, two.classes, two.table.tolist()) == ('two', ('a', 'b'), [0, 1, 0, 255])
    assert own.name == 'class' and own.classes[3] == 'class_3'
    assert len(finest_labels(dataset)[1]) == 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"two": {"a": ["tree", "car"]}}', "'a' of 'two' has unknown classes: car; the data set has sky, tree"),
        ('{"two": {"a": ["sky"], "b": ["sky"]}}', "'two' has sky in two groups"),
        ('{"two": ["sky"]}', 'must map granularities to groups'),
        ('{"two": ', 'must map granularities to groups'),
    ],
)
def test_wrong_groups(tmp_path: Path, content: str, message: str):
    path = tmp_path / 'groups.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_groups(path, ['sky', 'tree'])
    with pytest.raises(FileNotFoundError, match='there is no file of groups'):
        read_groups(tmp_path / 'absent.json', ['sky'])


def test_levels_get_the_granularity_of_their_size():
    def names(sizes, data):
        return [one.name for one in granularity_of_levels(sizes, data.GRANULARITIES)]

    assert names([6, 12, 24], DemoScenes) == ['group', 'object', 'part']
    assert names([27, 54, 108], COCOStuff27) == ['class', 'class', 'leaf']
    assert names([27, 54, 108], Cityscapes27) == ['class', 'class', 'class']
