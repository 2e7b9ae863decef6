"""A backbone of a user's own, as docs/backbones.md adds it: the code blocks of that page are run here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample

from omh_mmseg.models.backbones import FrozenBackbone
from omh_mmseg.models.backbones.key_converters import KEY_CONVERTERS
from omh_mmseg.registry import MODELS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / 'docs' / 'backbones.md'


def code(file: str) -> str:
    """The code block of the page that a line with the file's name introduces."""
    blocks = re.findall(rf'`{re.escape(file)}`[^\n]*:\n\n```python\n(.*?)```', PAGE.read_text(encoding='utf-8'), re.S)
    assert len(blocks) == 1, f'{len(blocks)} code blocks for {file}'
    return blocks[0]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder outside the package with the page's files, importable, and the page's weights."""
    (tmp_path / 'my_backbone.py').write_text(code('my_backbone.py'))
    (tmp_path / 'stripes.py').write_text(code('stripes.py'))
    configs = tmp_path / 'configs'
    configs.symlink_to(REPOSITORY / 'configs')
    (tmp_path / 'stego_stripes_folder.py').write_text(code('stego_stripes_folder.py'))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.save({'module.conv.weight': torch.randn(24, 3, 8, 8), 'module.fc.bias': torch.zeros(2)}, 'stripes.pth')
    yield tmp_path
    sys.modules.pop('my_backbone', None)
    MMSEG_MODELS.module_dict.pop('Stripes', None)
    KEY_CONVERTERS.pop('stripes', None)


def test_unknown_until_it_is_imported():
    with pytest.raises(ValueError, match="type 'Stripes' is not registered.*custom_imports"):
        FrozenBackbone(dict(type='Stripes'))


def test_page(project):
    config = Config.fromfile('stego_stripes_folder.py')  # carries out its custom_imports
    model = MODELS.build(config.model)
    model.init_weights()
    backbone = model.backbone
    assert (backbone.out_channels, backbone.stride, backbone.size_multiple) == (24, 8, 8)
    stored = torch.load('stripes.pth', weights_only=True)['module.conv.weight']
    assert torch.equal(backbone.backbone.conv.weight, stored)
    model.train()
    assert not backbone.backbone.training and not any(part.requires_grad for part in backbone.parameters())
    views = {name: torch.randn(2, 3, 32, 48) for name in ('anchor', 'neighbour')}
    losses = model.loss(views, [SegDataSample(), SegDataSample()])
    losses['loss_self'].backward()
    assert torch.equal(backbone.backbone.conv.weight, stored)
    assert model.decode_head.linear.weight.grad.norm() > 0
    assert not backbone.has_keys
    with pytest.raises(ValueError, match='keys=True needs .* What Stripes offers: outputs 0: 24 channels, 28x28'):
        backbone.taps(torch.randn(1, 3, 32, 32))


def test_every_block_is_on_the_page():
    text = PAGE.read_text(encoding='utf-8')
    for path in sorted((REPOSITORY / 'configs' / '_base_' / 'models' / 'backbones').glob('*.py')):
        assert f'`{path.stem}`' in text, path.stem


def test_every_converter_is_on_the_page():
    text = PAGE.read_text(encoding='utf-8')
    for name in KEY_CONVERTERS:
        assert f"`'{name}'`" in text, name
