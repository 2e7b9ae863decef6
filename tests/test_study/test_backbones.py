"""The comparison of backbones: what takes part, what a run is, what is kept, and the table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.study import backbones as module
from omh_mmseg.study.backbone_table import comparison_table, summarise, write_comparison
from omh_mmseg.study.backbones import (
    compare_backbones,
    contender_config,
    fit_sizes,
    parse_contender,
    train_and_measure,
)
from omh_mmseg.study.comparison import draw_comparison
from omh_mmseg.study.process import RESULT, forget_other_settings, write_text
from omh_mmseg.utils.config import read_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
BLOCKS = CONFIGS / '_base_' / 'models' / 'backbones'
STEGO, SMOOSEG = (str(CONFIGS / f'{name}_mobilenet-v2_folder.py') for name in ('stego', 'smooseg'))
TINY_BLOCK = """
model = dict(
    data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(embed_dims=12, num_layers=1, num_heads=2, feedforward_channels=12),
            img_size=64, patch_size=16, out_type='featmap', init_cfg=None,
        ),
    ),
)
"""


@pytest.fixture(autouse=True)
def scope(monkeypatch) -> Iterator[None]:
    init_default_scope('mmseg')
    for name in ('OMH_DATA_ROOT', 'OMH_NUM_CLASSES'):
        monkeypatch.delenv(name, raising=False)
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder data set of ten training and two validation images."""
    draw = np.random.default_rng(0)
    for split, count in (('train', 10), ('val', 2)):
        for kind in ('images', 'labels'):
            (tmp_path / 'data' / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = draw.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / 'data' / 'images' / split / f'{index}.jpg')
            label = draw.integers(0, 4, (60, 80), dtype=np.uint8)
            Image.fromarray(label).save(tmp_path / 'data' / 'labels' / split / f'{index}.png')
    (tmp_path / 'tiny.py').write_text(TINY_BLOCK)
    return tmp_path


@pytest.fixture
def options(folder) -> dict:
    quiet = {f'{loader}_dataloader.{key}': value for loader in ('train', 'val', 'test')
             for key, value in (('num_workers', 0), ('persistent_workers', False))}  # fmt: skip
    return quiet | {
        'data_root': str(folder / 'data'), 'num_classes': 4, 'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1,
        'train_dataloader.batch_size': 2,
    }  # fmt: skip


# ---- what takes part


def test_contenders():
    plain = parse_contender('mobilenet-v2', BLOCKS)
    assert (plain.name, plain.slug, plain.random, plain.options) == ('mobilenet-v2', 'mobilenet-v2', False, {})
    assert plain.block == BLOCKS / 'mobilenet-v2.py'
    text = 'the floor: resnet-18 random backbone.out_indices=(0,1) model.local_affinity=features x=0.5'
    floor = parse_contender(text, BLOCKS)
    assert (floor.name, floor.slug, floor.random) == ('the floor', 'the_floor', True)
    assert floor.options == {'backbone.out_indices': (0, 1), 'model.local_affinity': 'features', 'x': 0.5}
    assert parse_contender(f'{BLOCKS / "swin-t.py"}', BLOCKS).block == BLOCKS / 'swin-t.py'
    assert parse_contender('resnet-18  random', BLOCKS).name == 'resnet-18 random'


def test_wrong_contenders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no backbone block .*dino_vit-s9\.py; .* has .*dino_vit-s8'):
        parse_contender('dino_vit-s9', BLOCKS)
    with pytest.raises(ValueError, match="'randomly' is neither"):
        parse_contender('resnet-18 randomly', BLOCKS)
    twins = [parse_contender(text, BLOCKS) for text in ('a b: resnet-18', 'a_b: resnet-50')]
    with pytest.raises(ValueError, match='must differ in their names'):
        compare_backbones(STEGO, twins, [0], tmp_path)


def test_config_of_a_run(tmp_path):
    contender = parse_contender(
        'swin-t backbone.out_indices=0 data_preprocessor.size_divisor=64 model.decode_head.channels=9', BLOCKS
    )
    config = contender_config(STEGO, contender, 3, tmp_path, {'num_classes': 5, 'model.decode_head.channels': 8})
    block = Config.fromfile(str(contender.block))
    assert config.model.backbone.to_dict() == {**block.model.backbone.to_dict(), 'out_indices': 0}
    assert config.model.data_preprocessor.size_divisor == 64 and config.model.decode_head.channels == 9
    assert config.model.num_classes == 5 and config.randomness.seed == 3
    assert config.work_dir == str(tmp_path / contender.slug / 'seed3')
    index = config.train_dataloader.dataset['index']
    assert index == str(tmp_path / contender.slug / 'neighbours_{fingerprint}.npz')


def test_floor_has_weights_of_its_seed(tmp_path):
    for text in ('resnet-18 random', 'timm_dino_vit-s8 random'):
        contender = parse_contender(text, BLOCKS)
        configs = [contender_config(STEGO, contender, seed, tmp_path, {}) for seed in (0, 1)]
        frozen = configs[1].model.backbone
        assert frozen.checkpoint == str(tmp_path / contender.slug / 'seed1' / 'random_weights.pth')
        assert frozen.key_converter is None and not frozen.backbone.get('pretrained')
        assert len({config.train_dataloader.dataset['index'] for config in configs}) == 2


@pytest.mark.parametrize(('multiple', 'train', 'test'), [(16, (240, 320), 240), (14, (238, 322), 238),
                                                         (32, (256, 320), 256)])  # fmt: skip
def test_sizes_are_fitted_so_that_nothing_is_padded(multiple, train, test):
    config = read_config(STEGO)
    fit_sizes(config, multiple)
    sizes = [step.size for step in config.train_dataloader.dataset.dataset.pipeline if 'size' in step]
    assert [tuple(size) for size in sizes] == [train] * 2
    (step,) = (step for step in config.val_dataloader.dataset.pipeline if step.type == 'ResizeShortSide')
    assert (step.size, step.divisor) == (test, multiple)


# ---- a run


@pytest.mark.parametrize('host', [pytest.param(STEGO, marks=pytest.mark.slow), SMOOSEG], ids=['STEGO', 'SmooSeg'])
def test_train_and_measure(host, folder, options, tmp_path):
    contender = parse_contender(f'floor: {folder / "tiny.py"} random', BLOCKS)
    job = dict(host=host, contender=contender, seed=1, work_dir=str(tmp_path / 'runs'), options=options, timed_images=1)
    run = train_and_measure(job)
    assert {'probe/mIoU', 'probe/aAcc'} <= set(run['scores'])
    assert all(0 <= value <= 100 for value in run['scores'].values())
    stored = torch.load(tmp_path / 'runs' / 'floor' / 'seed1' / 'random_weights.pth', weights_only=True)
    assert run['backbone_parameters'] == sum(value.numel() for value in stored.values())
    assert run['trained_parameters'] > 0 and run['milliseconds'] > 0 and run['memory'] > 50
    # A run that was cut off between its last step and its result is scored without training again.
    assert train_and_measure(job)['scores'] == pytest.approx(run['scores'])
    assert torch.equal(
        torch.load(tmp_path / 'runs' / 'floor' / 'seed1' / 'random_weights.pth', weights_only=True)['cls_token'],
        stored['cls_token'],
    )


@pytest.mark.slow
def test_comparison_in_processes(folder, options, tmp_path):
    texts = [f'tiny: {folder / "tiny.py"} random', f'wrong: {folder / "tiny.py"} random backbone.out_indices=3']
    contenders = [parse_contender(text, BLOCKS) for text in texts]
    work_dir = tmp_path / 'runs'
    runs = compare_backbones(STEGO, contenders, [0, 1], work_dir, options, 1, progress=False)
    assert [run.get('error') is None for run in runs] == [True, True, False, False]
    assert 'ValueError: VisionTransformer returns 1 outputs, out_indices asks for [3]' in runs[2]['error']
    assert {'runs.csv', 'table.csv', 'table.md', 'backbones.png'} <= {path.name for path in work_dir.iterdir()}
    assert 'Traceback' in (work_dir / 'wrong' / 'seed0' / 'console.log').read_text()
    times = [(work_dir / 'tiny' / f'seed{seed}' / 'result.json').stat().st_mtime_ns for seed in (0, 1)]
    again = compare_backbones(STEGO, contenders[:1], [0, 1], work_dir, options, 1, progress=False)
    assert again == runs[:2]
    assert times == [(work_dir / 'tiny' / f'seed{seed}' / 'result.json').stat().st_mtime_ns for seed in (0, 1)]


# ---- what is kept


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """Runs are made up in this process; the list has the name and seed of each."""
    made: list[str] = []

    def carry_out(run):
        identity = dict(run.identity)
        made.append(f'{identity["backbone"]} {identity["seed"]}')
        forget_other_settings(run.folder, run.key)
        found = identity | (
            dict(error='ValueError: no') if 'fails' in identity['backbone'] else
            dict(scores={'probe/mIoU': 10.0 + identity['seed']}, backbone_parameters=1, trained_parameters=2,
                 milliseconds=3.0, memory=4.0, memory_of='process', seconds=5.0)
        )  # fmt: skip
        write_text(run.folder / RESULT, json.dumps(dict(key=run.key, run=found)))
        return found

    monkeypatch.setattr(module, '_run', carry_out)
    return made


def test_finished_runs_are_kept_and_failed_ones_tried_again(tmp_path, counted):
    contenders = [parse_contender(text, BLOCKS) for text in ('good: resnet-18', 'fails: resnet-50')]
    first = compare_backbones(STEGO, contenders, [0, 1], tmp_path, progress=False)
    assert counted == ['good 0', 'good 1', 'fails 0', 'fails 1']
    counted.clear()
    assert compare_backbones(STEGO, contenders, [0, 1, 2], tmp_path, progress=False)[:2] == first[:2]
    assert counted == ['good 2', 'fails 0', 'fails 1', 'fails 2']
    counted.clear()
    compare_backbones(STEGO, contenders[:1], [0], tmp_path, {'train_cfg.max_iters': 7}, progress=False)
    assert counted == ['good 0']


def test_config_that_cannot_be_made_is_a_row(tmp_path):
    contender = parse_contender('odd: resnet-18 model.decode_head.channels.x=1', BLOCKS)
    (run,) = compare_backbones(STEGO, [contender], [0], tmp_path, progress=False)
    assert run['backbone'] == 'odd' and run['error'].startswith(('TypeError', 'KeyError', 'AttributeError'))
    assert '| odd | 0 |' in (tmp_path / 'table.md').read_text()


# ---- table and picture


def made_up() -> list[dict]:
    measures = dict(backbone_parameters=2_224_000, trained_parameters=50_000, memory_of='process')
    runs = [
        dict(backbone='real', seed=seed, random=False, scores={'probe/mIoU': score, 'probe/aAcc': 50.0},
             milliseconds=time, memory=memory, **measures)
        for seed, score, time, memory in ((0, 20.0, 5.0, 800.0), (1, 22.0, 7.0, 700.0), (2, 24.0, 9.0, 600.0))
    ]  # fmt: skip
    runs.append(dict(backbone='one', seed=0, random=True, scores={'probe/mIoU': 3.0}, milliseconds=1.0, memory=9.0,
                     **measures))  # fmt: skip
    return [*runs, dict(backbone='one', seed=1, random=True, error='OSError: a | b'),
            dict(backbone='none', seed=0, random=False, error='ValueError: x')]  # fmt: skip


def test_summary():
    real, one, none = summarise(made_up())
    assert (real['runs'], real['probe/mIoU'], real['probe/mIoU spread']) == (3, 22.0, 2.0)
    assert (real['milliseconds'], real['memory'], real['error']) == (7.0, 800.0, '')
    assert (one['runs'], one['probe/mIoU'], one['probe/mIoU spread'], one['random']) == (1, 3.0, None, True)
    assert one['error'] == 'seed 1: OSError: a | b' and 'probe/aAcc' not in one
    assert (none['runs'], none['error']) == (0, 'seed 0: ValueError: x')


def test_table():
    head, _, real, one, none = comparison_table(made_up()).splitlines()
    assert head.startswith('| backbone | runs | probe/mIoU | probe/aAcc | ')
    assert real == '| real | 3 | 22.00 ± 2.00 | 50.00 ± 0.00 | 2.22 / 0.05 | 7.0 | 800 |  |'
    assert one == '| one | 1 | 3.00 | - | 2.22 / 0.05 | 1.0 | 9 | seed 1: OSError: a \\| b |'
    assert none == '| none | 0 | - | - | - | - | - | seed 0: ValueError: x |'


def test_files(tmp_path):
    paths = write_comparison(made_up(), tmp_path)
    assert [path.name for path in paths] == ['runs.csv', 'table.csv', 'table.md', 'backbones.png']
    with open(paths[0], newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and rows[1]['probe/mIoU'] == '22.0' and rows[4]['error'] == 'OSError: a | b'
    assert Image.open(paths[3]).size[0] > 500
    assert len(write_comparison(made_up()[-1:], tmp_path / 'none')) == 3


def test_picture_of_nothing(tmp_path):
    with pytest.raises(ValueError, match='no run has scores'):
        draw_comparison(tmp_path / 'x.png', made_up()[-2:])
