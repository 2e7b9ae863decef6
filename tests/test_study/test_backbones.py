"""Another backbone in a host: what takes part, what its run's config is, and real runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.study.backbones import fit_sizes
from omh_mmseg.study.job import SweepJob, job_config, make_neighbours, pairs_settings, train_and_score
from omh_mmseg.study.runner import run_sweep
from omh_mmseg.study.schedule import Schedule
from omh_mmseg.study.schedule_reader import parse_backbone, read_schedule
from omh_mmseg.utils.config import check_settings, doubtful_variables, read_config

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


def config_of(text: str, seed: int, folder: str | Path, **options) -> Config:
    return job_config(SweepJob(parse_backbone(text, STEGO, BLOCKS), seed, str(folder), options))


# ---- what takes part


def test_words_of_a_backbone():
    plain = parse_backbone('mobilenet-v2', STEGO, BLOCKS)
    assert (plain.name, plain.slug, plain.random, plain.options) == ('mobilenet-v2', 'mobilenet-v2', False, {})
    assert (plain.config, plain.backbone) == (STEGO, str(BLOCKS / 'mobilenet-v2.py'))
    text = 'the floor: resnet-18 random backbone.out_indices=(0,1) model.local_affinity=features x=0.5'
    floor = parse_backbone(text, STEGO, BLOCKS)
    assert (floor.name, floor.slug, floor.random) == ('the floor', 'the_floor', True)
    assert floor.options == {'model.backbone.out_indices': '(0,1)', 'model.local_affinity': 'features', 'x': '0.5'}
    assert parse_backbone(f'{BLOCKS / "swin-t.py"}', STEGO, BLOCKS).backbone == str(BLOCKS / 'swin-t.py')
    assert parse_backbone('resnet-18  random', STEGO, BLOCKS).name == 'resnet-18 random'


def test_wrong_words():
    with pytest.raises(FileNotFoundError, match=r'no backbone block .*dino_vit-s9\.py; .* has .*dino_vit-s8'):
        parse_backbone('dino_vit-s9', STEGO, BLOCKS)
    with pytest.raises(ValueError, match="'randomly' is neither"):
        parse_backbone('resnet-18 randomly', STEGO, BLOCKS)
    twins = tuple(parse_backbone(text, STEGO, BLOCKS) for text in ('a b: resnet-18', 'a/b: resnet-50'))
    with pytest.raises(ValueError, match='must differ'):
        Schedule(twins)


def test_backbones_of_a_schedule_file(tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    path = tmp_path / 'schedule.py'
    path.write_text(
        f'config = {STEGO!r}\ntimed_images = 5\nruns = [dict(name="floor", backbone="swin-t random backbone.frozen=1", '
        'vary={"model.backbone.out_indices": [0, 1]})]\n'
    )
    schedule = read_schedule(str(path))
    assert schedule.timed_images == 5
    for point, run in enumerate(schedule.runs):
        assert (run.name, run.curve, run.x, run.random) == (f'floor {point}', 'floor', point, True)
        assert run.options == {'model.backbone.frozen': '1', 'model.backbone.out_indices': point}
        assert Path(run.backbone).resolve() == BLOCKS / 'swin-t.py'


# ---- the config of a run


def test_config_of_a_run(tmp_path):
    text = 'swin-t backbone.out_indices=0 data_preprocessor.size_divisor=64 model.decode_head.channels=9'
    config = config_of(text, 3, tmp_path, **{'num_classes': 5, 'model.decode_head.channels': 8})
    block = Config.fromfile(str(BLOCKS / 'swin-t.py'))
    assert config.model.backbone.to_dict() == {**block.model.backbone.to_dict(), 'out_indices': 0}
    assert config.model.data_preprocessor.size_divisor == 64 and config.model.decode_head.channels == 9
    assert config.model.num_classes == 5 and config.randomness.seed == 3 and config.work_dir == str(tmp_path)
    assert config.train_dataloader.dataset['index'] == 'data/neighbours/swin-t_{fingerprint}.npz'


@pytest.mark.parametrize('text', ['resnet-18 random', 'timm_dino_vit-s8 random'])
def test_floor_has_weights_of_its_seed(tmp_path, text):
    configs = [config_of(text, seed, tmp_path) for seed in (0, 1)]
    frozen = configs[1].model.backbone
    assert frozen.key_converter is None and not frozen.backbone.get('pretrained')
    assert Path(frozen.checkpoint).parent == tmp_path and frozen.checkpoint != configs[0].model.backbone.checkpoint
    assert Path(configs[1].train_dataloader.dataset['index']).parent == tmp_path
    assert pairs_settings(configs[0]) != pairs_settings(configs[1])
    other = config_of(f'{text} backbone.backbone.frozen_stages=1', 1, tmp_path).model.backbone
    assert other.checkpoint != frozen.checkpoint


@pytest.mark.parametrize(('multiple', 'train', 'test'), [(16, (240, 320), 240), (14, (238, 322), 238),
                                                         (32, (256, 320), 256)])  # fmt: skip
def test_sizes_are_fitted_so_that_nothing_is_padded(multiple, train, test):
    config = read_config(STEGO)
    fit_sizes(config, multiple)
    sizes = [step.size for step in config.train_dataloader.dataset.dataset.pipeline if 'size' in step]
    assert [tuple(size) for size in sizes] == [train] * 2
    (step,) = (step for step in config.val_dataloader.dataset.pipeline if step.type == 'ResizeShortSide')
    assert (step.size, step.divisor) == (test, multiple)
    assert config.test_pipeline == config.test_dataloader.dataset.pipeline and doubtful_variables(config) == []
    assert config.tta_pipeline[1] == config.test_pipeline[1]
    check_settings(config)


# ---- real runs


@pytest.mark.parametrize('host', [pytest.param(STEGO, marks=pytest.mark.slow), SMOOSEG], ids=['STEGO', 'SmooSeg'])
def test_a_floor_is_trained_and_measured(host, folder, options, tmp_path):
    run = parse_backbone(f'floor: {folder / "tiny.py"} random', host, BLOCKS)
    job = SweepJob(run, 1, str(tmp_path / 'run'), options, timed_images=1)
    if host == STEGO:
        assert Path(make_neighbours(job)['path']).parent == tmp_path / 'run'
    result = train_and_score(job)
    assert {'probe/mIoU', 'probe/aAcc'} <= set(result['scores'])
    (path,) = (tmp_path / 'run').glob('random_weights_*_seed1.pth')
    stored = torch.load(path, weights_only=True)
    assert result['backbone_parameters'] == sum(value.numel() for value in stored.values())
    assert result['trained_parameters'] > 0 and result['ms_per_image'] > 0 and result['memory'] > 50
    path.unlink()
    # Weights are those of the seed, and a run that was cut off before its result is scored without training again.
    assert train_and_score(job)['scores'] == pytest.approx(result['scores'])
    assert torch.equal(torch.load(path, weights_only=True)['cls_token'], stored['cls_token'])


@pytest.mark.slow
def test_a_sweep_over_backbones(folder, options, tmp_path):
    texts = [f'tiny: {folder / "tiny.py"} random', f'wrong: {folder / "tiny.py"} random backbone.out_indices=3']
    runs = tuple(parse_backbone(text, STEGO, BLOCKS) for text in texts)
    figure = dict(kind='effects', file='backbones.png', metrics=['probe/mIoU'])
    schedule = Schedule(runs, (0, 1), figures=(figure,), timed_images=1)
    rows = run_sweep(schedule, tmp_path / 'work', options, progress=False)
    assert [row['status'] for row in rows] == ['finished', 'finished', 'failed', 'failed']
    assert 'ValueError: VisionTransformer returns 1 outputs, out_indices asks for [3]' in rows[2]['error']
    assert rows[0]['backbone'] == f'{folder / "tiny.py"} random'
    assert Image.open(tmp_path / 'work' / 'backbones.png').size[0] > 300
    times = [(Path(row['folder']) / 'result.json').stat().st_mtime_ns for row in rows[:2]]
    again = run_sweep(Schedule(runs[:1], (0, 1), timed_images=1), tmp_path / 'work', options, progress=False)
    assert again == rows[:2]
    assert times == [(Path(row['folder']) / 'result.json').stat().st_mtime_ns for row in rows[:2]]
