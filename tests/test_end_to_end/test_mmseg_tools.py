"""mmseg's own commands and inference helpers, from the installed package, on the demo config, in another directory."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason='mmseg was installed without its tools')


@pytest.fixture
def scope() -> Iterator[None]:
    """Leave no default scope behind."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='module')
def elsewhere(trained, command, run, tmp_path_factory) -> Path:
    """A directory in which mmseg's ``train.py`` has run for two steps."""
    folder = tmp_path_factory.mktemp('elsewhere')
    options = trained.options | {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    run(folder, command(TOOLS / 'train.py', trained.config, options=options))
    return folder


def test_train(elsewhere):
    (work_dir,) = (elsewhere / 'work_dirs').iterdir()
    assert work_dir.name == 'omh_stego_vit-t8_demo'
    assert (work_dir / 'iter_2.pth').is_file() and (work_dir / 'hierarchy.json').is_file()
    (figures,) = work_dir.glob('*/vis_data/scalars.json')
    assert 'level1/mIoU' in json.loads(figures.read_text().splitlines()[-1])


def test_test_with_out_and_show_dir(elsewhere, trained, command, run, tmp_path):
    log = run(
        tmp_path,
        command(
            TOOLS / 'test.py', trained.config, elsewhere / 'work_dirs' / trained.config.stem / 'iter_2.pth',
            '--out', 'maps', '--show-dir', 'pictures', options=trained.options,
        ),
    )  # fmt: skip
    assert 'probe/mIoU' in log
    maps = [np.array(Image.open(path)) for path in (tmp_path / 'maps').glob('*.png')]
    assert len(maps) == 4 and all(one.shape == (128, 128) and one.max() < 6 for one in maps)
    assert len(list((tmp_path / 'pictures').rglob('test_*.png'))) == 4


def test_get_flops(trained, command, run, tmp_path):
    log = run(
        tmp_path,
        command(
            TOOLS / 'analysis_tools' / 'get_flops.py', trained.config, '--shape', 128, 128,
            options={'model.backbone.checkpoint': trained.folder / 'vit.pth', 'work_dir': tmp_path},
        ),
    )  # fmt: skip
    flops = float(re.search(r'Flops: ([0-9.]+)G', log).group(1))
    parameters = float(re.search(r'Params: ([0-9.]+)M', log).group(1))
    # 256 tokens of 192 channels through four blocks: about 0.5 G; the ViT has 1.9 M parameters.
    assert 0.3 < flops < 1.5
    assert 1.8 < parameters < 3.0


@pytest.mark.slow
@pytest.mark.parametrize('arguments', [['--amp'], ['--resume']], ids=str)
def test_options_of_train(elsewhere, trained, command, run, arguments):
    """``--resume`` goes on; ``--amp`` is refused by mmengine without an accelerator, and reaches it unchanged."""
    options = trained.options | {'train_cfg.max_iters': 3, 'train_cfg.val_interval': 3}
    status = 1 if arguments == ['--amp'] and not torch.cuda.is_available() else 0
    log = run(elsewhere, command(TOOLS / 'train.py', trained.config, *arguments, options=options), status)
    if arguments == ['--resume']:
        assert 'resumed epoch: 0, iter: 2' in log
    elif status:
        assert 'AmpOptimizerWrapper`` is only available training on gpu' in log


@pytest.mark.slow
def test_browse_dataset(trained, command, run, tmp_path):
    run(
        tmp_path,
        command(
            TOOLS / 'analysis_tools' / 'browse_dataset.py', trained.config, '--output-dir', 'browsed', '--not-show',
            options=trained.options,
        ),
    )  # fmt: skip
    assert list((tmp_path / 'browsed').rglob('*.png'))


def test_inference_model_takes_a_path(trained, scope, tmp_path, monkeypatch):
    from mmseg.apis import inference_model, init_model

    monkeypatch.setattr(sys, 'argv', ['pytest'])
    config = Config.fromfile(str(trained.config))
    config.model.backbone.checkpoint = str(trained.folder / 'vit.pth')
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    model = init_model(config, str(trained.work_dir / 'iter_4.pth'), device='cpu')
    result = inference_model(model, str(tmp_path / 'a.png'))
    for name in ('pred_sem_seg', 'pred_linear', 'pred_level1', 'pred_level2', 'pred_level3'):
        assert result.get(name).data.shape == (1, 90, 120)
    assert len(model.dataset_meta['classes']) == 6
    array = np.array(Image.open(tmp_path / 'a.png'))[:, :, ::-1].copy()
    assert torch.equal(inference_model(model, array).pred_sem_seg.data, result.pred_sem_seg.data)
