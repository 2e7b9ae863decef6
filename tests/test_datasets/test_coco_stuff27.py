from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import mmseg
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import COCOStuffDataset
from PIL import Image

from omh_mmseg.datasets import COCOStuff27
from omh_mmseg.datasets.coco_stuff27 import RAW_TO_27, UNUSED_RAW, USED_RAW
from omh_mmseg.registry import DATASETS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets' / 'coco-stuff27.py'
PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]
# Raw values of each class as docs/methods/data.md B.1 groups them, written down independently of the table in order of
# values.
GROUPS = {
    'electronic': '71-76', 'appliance': '77-82', 'food-thing': '51-60', 'furniture-thing': '61-70', 'indoor': '83-90',
    'kitchen': '43-50', 'accessory': '25-32', 'animal': '15-24', 'outdoor': '9-14', 'person': '0', 'sports': '33-42',
    'vehicle': '1-8', 'ceiling': '101-102', 'floor': '100 113-117', 'food-stuff': '120-121 152 169',
    'furniture-stuff': '97 106-107 109 111 122 129 132 155 160 164', 'rawmaterial': '99 131 138 142',
    'textile': '91-92 103-104 108 130 136 140 151 166-167', 'wall': '170-176', 'window': '179-180',
    'building': '94-95 127 150 157 165', 'ground': '110 124-125 135 139 143-144 146 148 153 158',
    'plant': '93 96 118 123 128 133 141 162 168', 'sky': '105 156', 'solid': '126 134 149 159 161 181',
    'structural': '98 112 137 145 163', 'water': '119 147 154 177-178',
}  # fmt: skip


def numbers(text: str) -> list[int]:
    ranges = [part.split('-') for part in text.split()]
    return [value for part in ranges for value in range(int(part[0]), int(part[-1]) + 1)]


@pytest.fixture
def coco(tmp_path):
    """STEGO's layout: three images per split, two of them in the lists, every raw value in the first label."""

    def write(layout: str = 'stego', size: tuple[int, int] = (60, 80)) -> Path:
        base = tmp_path / 'cocostuff' if layout == 'stego' else tmp_path
        suffix = '.png' if layout == 'stego' else '_labelTrainIds.png'
        values = list(range(182)) if layout == 'stego' else list(range(171))
        generator = np.random.default_rng(0)
        for split, name in (('train2017', 'Coarse.txt'), ('val2017', 'Coarse_7.txt')):
            for kind in ('images', 'annotations', 'curated'):
                (base / kind / split).mkdir(parents=True)
            for number in range(3):
                image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(image).save(base / 'images' / split / f'{number:012d}.jpg')
                label = np.resize(np.array([*values, 255], np.uint8), size)
                Image.fromarray(label).save(base / 'annotations' / split / f'{number:012d}{suffix}')
            (base / 'curated' / split / name).write_text('000000000002\n000000000000\n')
        return tmp_path

    return write


def build(root: Path, **options) -> COCOStuff27:
    options = dict(pipeline=PIPELINE, ann_file='Coarse.txt') | options
    return DATASETS.build(dict(type='COCOStuff27', data_root=str(root), **options))


def test_table_equals_the_grouped_table():
    assert len(RAW_TO_27) == 182
    assert list(GROUPS) == list(COCOStuff27.METAINFO['classes'])
    for index, raw in enumerate(GROUPS.values()):
        assert [value for value, target in enumerate(RAW_TO_27) if target == index] == numbers(raw)
    assert len(USED_RAW) == 171
    assert len({tuple(colour) for colour in COCOStuff27.METAINFO['palette']}) == 27


def test_train_ids_equal_those_of_mmsegs_converter():
    path = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'dataset_converters' / 'coco_stuff164k.py'
    if not path.is_file():
        pytest.skip(f'mmseg is installed without {path}')
    converter = runpy.run_path(str(path), run_name='converter')
    expected = {raw: train_id for raw, train_id in converter['clsID_to_trID'].items() if raw != 255}
    assert expected == {raw: train_id for train_id, raw in enumerate(USED_RAW)}


def test_train_ids_have_the_names_of_mmseg():
    names = COCOStuffDataset.METAINFO['classes']
    merged = {name: COCOStuff27.METAINFO['classes'][RAW_TO_27[raw]] for raw, name in zip(USED_RAW, names, strict=True)}
    for name, group in {
        'person': 'person', 'truck': 'vehicle', 'stop sign': 'outdoor', 'zebra': 'animal', 'backpack': 'accessory',
        'pizza': 'food-thing', 'dining table': 'furniture-thing', 'toilet': 'furniture-thing', 'tv': 'electronic',
        'toothbrush': 'indoor', 'wall-wood': 'wall', 'window-blind': 'window', 'grass': 'plant', 'sky-other': 'sky',
        'sea': 'water', 'wood': 'solid',
    }.items():  # fmt: skip
        assert merged[name] == group


def test_stego_layout_reads_only_the_list_in_its_order(coco):
    root = coco()
    (root / 'cocostuff' / 'images' / 'train2017' / '000000000001.jpg').write_text('broken, and not in the list')
    data = build(root)
    assert [Path(data.get_data_info(index)['img_path']).stem for index in range(len(data))] == [
        '000000000002',
        '000000000000',
    ]
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()
    assert tuple(label[:182]) == RAW_TO_27
    assert label[182] == 255


@pytest.mark.parametrize('size', [(60, 80), (61, 79)])
@pytest.mark.parametrize(('layout', 'values'), [('stego', 182), ('mmseg', 171)])
def test_sizes_and_unknown_values(coco, layout, values, size):
    root = coco(layout, size)
    data = build(root, layout=layout)
    item = data[0]
    assert item['inputs'].shape == (3, *size)
    assert item['data_samples'].gt_sem_seg.shape == size
    path = data.get_data_info(0)['seg_map_path']
    Image.fromarray(np.full(size, values, np.uint8)).save(path)
    with pytest.raises(ValueError, match=f'{path}: .*holds the value {values}; accepted are 0..{values - 1}, 255'):
        data[0]


def test_mmseg_layout(coco):
    data = build(coco('mmseg'), layout='mmseg')
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()
    assert tuple(label[:171]) == tuple(RAW_TO_27[raw] for raw in USED_RAW)
    assert label[171] == 255


def test_without_a_list_every_image_is_read(coco):
    assert len(build(coco(), ann_file='')) == 3


def test_absolute_list(coco, tmp_path):
    (tmp_path / 'mine.txt').write_text('000000000001.jpg\n')
    assert len(build(coco(), ann_file=str(tmp_path / 'mine.txt'))) == 1


def test_chosen_classes(coco):
    data = build(coco(), metainfo=dict(classes=['sky', 'person']))
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()[:182]
    assert [label[105], label[156], label[0]] == [0, 0, 1]
    assert Counter(label.tolist()) == {0: 2, 1: 1, 255: 179}
    assert data.metainfo['classes'] == ['sky', 'person']


@pytest.mark.parametrize('layout', ['stego', 'mmseg'])
def test_leaves(coco, layout):
    data = build(coco(layout), layout=layout, level='leaf')
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()
    if layout == 'stego':
        assert all(label[raw] == 255 for raw in UNUSED_RAW)
        label = np.append(label[list(USED_RAW)], label[182])
    assert label[:172].tolist() == [*range(171), 255]
    assert data.metainfo['classes'] == tuple(COCOStuffDataset.METAINFO['classes'])
    assert len({tuple(colour) for colour in data.metainfo['palette']}) == 171


def test_the_usual_classes_by_name_and_chosen_leaves(coco):
    root = coco()
    label = build(root, level='class')[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()
    usual = build(root)[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()
    assert (label == usual).sum() == len(label) - Counter(np.isin(np.resize(np.arange(183), 4800), UNUSED_RAW))[True]
    data = build(root, level='leaf', metainfo=dict(classes=['zebra', 'sea']))
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()[:182]
    assert Counter(label.tolist()) == {0: 1, 1: 1, 255: 180}
    with pytest.raises(ValueError, match="classes sky are not among the 'leaf' labels of COCOStuff27: person, bicycle"):
        build(root, level='leaf', metainfo=dict(classes=['sky']))
    with pytest.raises(ValueError, match="level is 'part', but COCOStuff27 has 'class' and 'leaf'"):
        build(root, level='part')


def test_labels_none(coco):
    data = build(coco(), labels='none')
    assert len(data) == 2
    assert 'gt_sem_seg' not in data[0]['data_samples']


def test_list_names_absent_images(coco):
    root = coco()
    list_file = root / 'cocostuff' / 'curated' / 'train2017' / 'Coarse.txt'
    list_file.write_text('\n'.join(f'{number:012d}' for number in range(8)))
    with pytest.raises(FileNotFoundError, match=r'Coarse.txt lists 5 images \(of 8\) .*: 000000000003, .*and 2 more'):
        build(root)
    list_file.write_text('\n')
    with pytest.raises(ValueError, match='the list .*Coarse.txt is empty'):
        build(root)


def test_wrong_layout_says_what_was_looked_for(coco, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of images '.*images/train2017'.*layout='mmseg' looks"):
        build(coco(), layout='mmseg')
    with pytest.raises(ValueError, match="layout='coco' is unknown; choose one of .'mmseg', 'stego'"):
        build(tmp_path, layout='coco')
    with pytest.raises(FileNotFoundError, match="no list of images '.*Other.txt'; ann_file='' takes every image"):
        build(tmp_path, ann_file='Other.txt')


def test_the_other_layout_is_pointed_out(coco):
    with pytest.raises(FileNotFoundError, match="The folders of layout='stego' are there"):
        build(coco(), layout='mmseg')


def test_missing_labels(coco):
    root = coco()
    (root / 'cocostuff' / 'annotations' / 'train2017' / '000000000002.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 2 images have no label <id>.png in .*: 000000000002'):
        build(root)
    with pytest.raises(ValueError, match="labels='auto' is unknown"):
        build(root, labels='auto')


def test_config_builds_on_a_fixture(coco, monkeypatch):
    root = coco()
    monkeypatch.setenv('OMH_DATA_ROOT', str(root))
    cfg = Config.fromfile(str(CONFIG))
    cfg.train_dataloader.dataset.dataset.ann_file = 'Coarse.txt'
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(train) == 10
    assert train[9]['inputs'].shape == (3, 224, 224)
    assert train[9]['data_samples'].gt_sem_seg.shape == (224, 224)
    cfg.val_dataloader.dataset.ann_file = 'Coarse_7.txt'
    val = DATASETS.build(cfg.val_dataloader.dataset)
    assert val[0]['inputs'].shape == (3, 320, 320)
    assert val[0]['data_samples'].gt_sem_seg.shape == (320, 320)
    assert cfg.val_dataloader.sampler.round_up is False


def test_config_names_the_lists_of_the_protocol():
    cfg = Config.fromfile(str(CONFIG))
    assert cfg.train_dataloader.dataset.dataset.ann_file == 'Coco164kFull_Stuff_Coarse.txt'
    assert cfg.val_dataloader.dataset.ann_file == 'Coco164kFull_Stuff_Coarse_7.txt'
    assert cfg.test_pipeline[0].type == 'LoadImageFromFile'
