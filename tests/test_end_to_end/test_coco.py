"""The canonical config on a few pictures in COCO-Stuff's layout, with random weights under DINO's names."""

from __future__ import annotations

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
from omh_mmseg.registry import MODELS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'omh_stego_vit-s8_coco.py'
TO_DINO = (
    ('patch_embed.projection.', 'patch_embed.proj.'), ('.ln1.', '.norm1.'), ('.ln2.', '.norm2.'),
    ('.ffn.layers.0.0.', '.mlp.fc1.'), ('.ffn.layers.1.', '.mlp.fc2.'), ('layers.', 'blocks.'),
)  # fmt: skip


@pytest.fixture
def scope() -> Iterator[None]:
    init_default_scope('mmseg')
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def folder(tmp_path, scope) -> Path:
    """``data/cocostuff`` with 2 + 1 pictures below the lists' own names, and ``dino.pth``."""
    config = Config.fromfile(str(CONFIG))
    generator = np.random.default_rng(0)
    for split, listed, count in (('train2017', config.train_list, 2), ('val2017', config.val_list, 1)):
        names = [f'{number:012d}' for number in range(count)]
        for kind, mode, suffix in (('images', 'RGB', '.jpg'), ('annotations', 'L', '.png')):
            (tmp_path / 'data/cocostuff' / kind / split).mkdir(parents=True)
            for name in names:
                coarse = generator.integers(0, 182, (6, 8, 3)[: 3 if mode == 'RGB' else 2], dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((320, 240), Image.NEAREST)
                picture.save(tmp_path / 'data/cocostuff' / kind / split / f'{name}{suffix}')
        lists = tmp_path / 'data/cocostuff/curated' / split
        lists.mkdir(parents=True)
        (lists / listed).write_text('\n'.join(names))
    torch.manual_seed(0)
    state = {}
    for key, value in MODELS.build(config.model.backbone.backbone).state_dict().items():
        if key.startswith('ln1.'):
            key = key.replace('ln1.', 'norm.')
        for ours, theirs in TO_DINO:
            key = key.replace(ours, theirs)
        state[key] = value
    assert sum(value.numel() for value in state.values()) > 21_000_000
    torch.save(state, tmp_path / 'dino.pth')
    return tmp_path


@pytest.mark.slow
def test_prepares_trains_and_validates(folder, command, run):
    options = {
        'model.backbone.checkpoint': 'dino.pth',
        'model.omh_head.reach.begin': 0,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'default_hooks.logger.interval': 1,
    }
    log = run(folder, command('prepare.py', 'neighbours', CONFIG, options=options))
    (index,) = (folder / 'data/neighbours').glob('coco-stuff27_vit-s8_*.npz')
    assert f'neighbour index written to {index}' in log
    with np.load(index) as arrays:
        assert arrays['neighbours'].shape == (10, 10)  # five crops of two pictures

    log = run(folder, command('train.py', CONFIG, options=options))
    work_dir = folder / 'work_dirs/omh_stego_vit-s8_coco'
    (figures,) = work_dir.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in figures.read_text().splitlines()]
    assert [step['iter'] for step in steps if 'loss' in step] == [1, 2]
    assert all('loss_omh_match' in step for step in steps if 'loss' in step)
    assert {'probe/mIoU', 'linear/mIoU', 'level1/mIoU'} <= set(steps[-1])
    state = torch.load(work_dir / 'iter_2.pth', weights_only=False)['state_dict']
    original = torch.load(folder / 'dino.pth', weights_only=True)
    assert torch.equal(state['backbone.backbone.layers.11.ffn.layers.1.weight'], original['blocks.11.mlp.fc2.weight'])
    assert torch.equal(state['backbone.backbone.ln1.weight'], original['norm.weight'])
    assert [len(state[f'omh_head.centres.{level}']) for level in range(3)] == [27, 54, 108]
    assert 'Loaded the frozen backbone from dino.pth' in log
