"""docs/extending.md, executed from outside the package: its files are written into an empty folder and used there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmseg.registry import DATASETS as MMSEG_DATASETS
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.registry import DATASETS, MODELS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / 'docs' / 'extending.md'
PARTS = {'NeighbourContrast': 'contrast_host', 'Tiles': 'tiles', 'SquaredMatching': 'squared_matching'}


def files() -> dict[str, str]:
    """The page's files: a code block belongs to the file that the line before it begins with."""
    return dict(re.findall(r'^`(\w+\.py)`[^\n]*(?:\n[^\n]+)*:\n\n```python\n(.*?)```', PAGE.read_text(), re.S | re.M))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page and a link to the configs; what they register goes afterwards."""
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    (tmp_path / 'configs').symlink_to(REPOSITORY / 'configs')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    init_default_scope('mmseg')
    yield tmp_path
    DefaultScope._instance_dict.clear()
    for name, module in PARTS.items():
        sys.modules.pop(module, None)
        for registry in (MODELS, DATASETS, MMSEG_MODELS, MMSEG_DATASETS):
            registry.module_dict.pop(name, None)


def trained_step(config: Config, inputs: object) -> dict[str, torch.Tensor]:
    config.model.omh_head.reach = dict(begin=0)
    model = MODELS.build(config.model)
    model.init_weights()
    losses = model.train().loss(inputs, [SegDataSample(), SegDataSample()])
    torch.stack([value for name, value in losses.items() if 'loss' in name]).sum().backward()
    assert model.decode_head.linear.weight.grad.norm() > 0
    return losses


def test_every_block_of_the_page_is_a_file():
    blocks = PAGE.read_text().count('```python')
    assert blocks == len(files()) == 6


def test_the_host_is_short():
    assert len(files()['contrast_host.py'].splitlines()) <= 40


def test_a_host(project):
    losses = trained_step(Config.fromfile('contrast_demo.py'), torch.randn(2, 3, 64, 64))
    assert {'loss_contrast', 'loss_cluster_probe', 'loss_linear_probe', 'loss_omh_match'} <= losses.keys()
    with pytest.raises(ValueError, match='temperature must be above 0; got 0'):
        MODELS.build(dict(Config.fromfile('contrast_demo.py').model, temperature=0))


def test_a_loss_option(project):
    config = Config.fromfile('omh_squared_demo.py')
    views = {name: torch.randn(2, 3, 64, 64) for name in ('anchor', 'neighbour')}
    assert float(trained_step(config, views)['loss_omh_match'].detach()) > 0
    config.model.omh_head.match.power = 3
    with pytest.raises(ValueError, match='SquaredMatching, which takes no option power; it takes loss_weight'):
        MODELS.build(config.model)


def test_a_data_set(project):
    folder = project / 'photos'
    folder.mkdir()
    for number in range(5):
        Image.fromarray(np.full((64, 96, 3), 40 * number, np.uint8)).save(folder / f'{number}.jpg')
        if number != 1:
            Image.fromarray(np.full((64, 96), number % 3, np.uint8)).save(folder / f'{number}_label.png')
    config = Config.fromfile('smooseg_tiles.py')
    assert config.model.num_classes == 3 and config.test_dataloader.dataset.type == 'Tiles'
    train, val = (DATASETS.build(config[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    assert (len(train), len(val), train.metainfo['classes']) == (3, 2, ('ground', 'roof', 'tree'))
    assert 'gt_sem_seg' in train[0]['data_samples'] and 'gt_sem_seg' not in train[1]['data_samples']
    assert int(val[0]['data_samples'].gt_sem_seg.data.max()) == 0
    (folder / 'extra').mkdir()
    config.val_dataloader.dataset.data_root = str(folder / 'extra')
    with pytest.raises(FileNotFoundError, match='holds 0 .jpg images; more than 2 needed'):
        DATASETS.build(config.val_dataloader.dataset)


@pytest.mark.slow
def test_a_host_through_the_commands(project):
    """The command of the page, for two steps."""
    command = [sys.executable, str(REPOSITORY / 'tools' / 'train.py'), 'contrast_demo.py', '--work-dir', 'work']
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    environment = {'PYTHONPATH': f'.:{REPOSITORY}', 'PATH': '/usr/bin:/bin', 'HOME': str(project)}
    result = subprocess.run(
        [*command, '--cfg-options', *options], capture_output=True, text=True, env=environment, cwd=project
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert (project / 'work' / 'iter_2.pth').is_file() and 'level1 (hungarian)' in result.stdout + result.stderr
