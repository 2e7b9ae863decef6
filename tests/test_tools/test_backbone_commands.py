"""Pre-training on a folder, and the commands that take a backbone by its block."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

from omh_mmseg.commands.analysis_tools import kmeans_baseline

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / '.dev_scripts'
FOLDER_CONFIG = SCRIPTS / 'pretrain_vit-t8_folder.py'


def script(name: str) -> ModuleType:
    path = SCRIPTS / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv('OMH_DATA_ROOT', raising=False)
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def photos(tmp_path) -> Path:
    """Six JPEG photos in two data sets, and labels as PNG that must not be taken for photos."""
    draw = np.random.default_rng(0)
    for name, split in (('one', 'train'), ('one', 'val'), ('two', 'train')):
        for kind, ending in (('images', 'jpg'), ('labels', 'png')):
            folder = tmp_path / 'photos' / name / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(2):
                shape = (90, 120, 3) if kind == 'images' else (90, 120)
                Image.fromarray(draw.integers(0, 11, shape, dtype=np.uint8)).save(folder / f'{index}.{ending}')
    return tmp_path / 'photos'


def test_pretraining_takes_all_photos_and_no_labels(photos):
    import mmpretrain.datasets  # noqa: F401
    from mmpretrain.registry import DATASETS

    init_default_scope('mmpretrain')
    config = Config.fromfile(FOLDER_CONFIG)
    assert config.scenes is None
    dataset = DATASETS.build({**config.train_dataloader.dataset, 'data_root': str(photos)})
    assert len(dataset) == 6 and all(dataset.get_data_info(index)['img_path'].endswith('.jpg') for index in range(6))
    views = dataset[0]['inputs']
    assert [tuple(view.shape) for view in views] == [(3, 64, 64)] * 2
    assert config.model.backbone.img_size == 64 and config.param_scheduler[1].end == config.train_cfg.max_epochs


def test_pretrained_weights_fit_the_block(monkeypatch, photos, tmp_path):
    """One step of the training, and its weights in the backbone of the demo."""
    from omh_mmseg.models.backbones import FrozenBackbone

    out = tmp_path / 'vit.pth'
    options = [
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False', 'train_dataloader.batch_size=2',
        'train_dataloader.sampler.type=DefaultSampler', 'train_dataloader.sampler.shuffle=True',
        'train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=-1',
    ]  # fmt: skip
    module = script('pretrain_demo_backbone.py')
    from_file = Config.fromfile

    def without_repeats(path: str) -> Config:
        config = from_file(path)
        config.train_dataloader.sampler.pop('num_repeats')
        return config

    monkeypatch.setattr(Config, 'fromfile', staticmethod(without_repeats))
    words = ['--data-root', str(photos), '--out', str(out), '--work-dir', str(tmp_path / 'work'), '--cfg-options']
    monkeypatch.setattr(sys, 'argv', ['pretrain_demo_backbone.py', str(FOLDER_CONFIG), *words, *options])
    module.main()
    monkeypatch.undo()
    block = Config.fromfile(REPOSITORY / 'configs/_base_/models/backbones/vit-t8_demo.py').model.backbone
    backbone = FrozenBackbone(block.backbone, str(out))
    backbone.init_weights()
    assert torch.isfinite(backbone(torch.randn(1, 3, 64, 96))).all()


def test_pretraining_without_a_folder(monkeypatch, tmp_path):
    words = ['--data-root', str(tmp_path / 'absent'), '--out', str(tmp_path / 'x.pth')]
    monkeypatch.setattr(sys, 'argv', ['pretrain_demo_backbone.py', str(FOLDER_CONFIG), *words])
    with pytest.raises(SystemExit, match='there is no folder .*absent; set --data-root'):
        script('pretrain_demo_backbone.py').main()


def test_kmeans_on_another_backbone(monkeypatch, photos, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    options = [f'data_root={photos / "one"}', 'num_classes=11', 'val_dataloader.num_workers=0',
               'val_dataloader.persistent_workers=False']  # fmt: skip
    kmeans_baseline.main([
        str(REPOSITORY / 'configs' / 'stego_mobilenet-v2_folder.py'), '--backbone', 'vit-t8_demo random',
        '--seeds', '0', '--per-image', '50', '--cfg-options', *options,
    ])  # fmt: skip
    assert 'k-means, seed 0: mIoU' in capsys.readouterr().out
    assert list((tmp_path / 'work_dirs' / 'kmeans_baseline' / 'vit-t8_demo_random').glob('random_weights_*_seed0.pth'))
