from __future__ import annotations

import sys
from argparse import Namespace

import pytest
import torch

from omh_mmseg.commands.model_converters import dino2mmpretrain
from omh_mmseg.models.backbones import FrozenBackbone
from omh_mmseg.models.backbones.key_converters import dino_to_mmpretrain
from omh_mmseg.models.converters.dino import convert_dino, transformer_shape
from omh_mmseg.registry import MODELS

# docs/methods/features.md 1.1: embedding, heads, patch, mmpretrain's name; depth 12 and 224 pixels throughout.
PUBLISHED = {
    'vit-s8': (384, 6, 8, 'deit-small'),
    'vit-s16': (384, 6, 16, 'deit-small'),
    'vit-b8': (768, 12, 8, 'deit-base'),
    'vit-b16': (768, 12, 16, 'deit-base'),
}


def config(name: str) -> dict:
    _, _, patch, arch = PUBLISHED[name]
    return dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=224, patch_size=patch, out_type='featmap')


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes_load_strictly(dino_state, name):
    embed, heads, patch, _ = PUBLISHED[name]
    state = dino_to_mmpretrain(dino_state(embed, 12, patch, 224 // patch))
    shape = transformer_shape(state, name)
    assert shape.short_name == name and shape.config() == config(name)
    with torch.device('meta'):
        backbone = MODELS.build(config(name))
    assert {key: value.shape for key, value in backbone.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    backbone.load_state_dict(state, strict=True, assign=True)
    assert len(backbone.layers) == 12 and backbone.layers[0].attn.num_heads == heads
    assert {module.eps for module in backbone.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}
    assert backbone.layers[0].attn.qkv.bias is not None and backbone.layers[0].ffn.add_identity


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'size'), [('vit-s8', 96), ('vit-s16', 224), ('vit-s16', 320), ('vit-b16', 160)])
def test_full_size_features(dino_state, dino_forward, tmp_path, name, size):
    embed, heads, patch, _ = PUBLISHED[name]
    state = dino_state(embed, 12, patch, 224 // patch)
    torch.save(state, tmp_path / 'dino.pth')
    backbone = FrozenBackbone(
        config(name), str(tmp_path / 'dino.pth'), 'dino', position_interpolation='dino', out_channels=embed,
        stride=patch,
    )  # fmt: skip
    backbone.init_weights()
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        features, keys = dino_forward(state, images, heads)
    taps = backbone.taps(images)
    torch.testing.assert_close(taps.features, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(taps.keys, keys, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('size', [(32, 32), (32, 56), (48, 48)])
def test_features_of_the_written_file(dino_state, dino_forward, tmp_path, size):
    state = dino_state(128, 3, 8, 4)
    torch.save(dict(teacher={f'module.backbone.{key}': value for key, value in state.items()}), tmp_path / 'in.pth')
    shape = convert_dino(str(tmp_path / 'in.pth'), tmp_path / 'out.pth')
    written = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert written['meta'] == dict(source='in.pth', backbone=shape.config())
    assert shape.config()['arch'] == dict(embed_dims=128, num_layers=3, num_heads=2, feedforward_channels=512)
    assert (shape.config()['img_size'], shape.config()['patch_size'], shape.short_name) == (32, 8, None)
    images = torch.randn(2, 3, *size)
    features, keys = dino_forward(state, images, 2)
    backbone = FrozenBackbone(shape.config(), str(tmp_path / 'out.pth'), position_interpolation='dino')
    backbone.init_weights()
    taps = backbone.taps(images)
    torch.testing.assert_close(taps.features, features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(taps.keys, keys, rtol=1e-5, atol=1e-5)


def test_written_file_serves_plain_mmpretrain(dino_state, tmp_path):
    torch.save(dino_state(128, 2, 8, 4), tmp_path / 'in.pth')
    shape = convert_dino(str(tmp_path / 'in.pth'), tmp_path / 'out.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'out.pth'))
    backbone = MODELS.build(shape.config() | dict(init_cfg=init))
    backbone.init_weights()
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert all(torch.equal(value, written[key]) for key, value in backbone.state_dict().items())
    assert written.keys() == backbone.state_dict().keys()


def test_written_file_holds_the_weights_alone(dino_state, tmp_path):
    state = dino_state(128, 2, 8, 4)
    storage = torch.randn(10**6)
    storage[:128] = state['norm.bias']
    torch.save(state | {'norm.bias': storage[:128]}, tmp_path / 'in.pth')
    convert_dino(str(tmp_path / 'in.pth'), tmp_path / 'out.pth')
    assert (tmp_path / 'in.pth').stat().st_size - (tmp_path / 'out.pth').stat().st_size > 3.9e6


def test_whole_training_checkpoint(dino_state, tmp_path):
    state = dino_state(128, 2, 8, 4)
    teacher = {f'backbone.{key}': value for key, value in state.items()} | {'head.mlp.0.weight': torch.zeros(3, 3)}
    torch.save(dict(student={}, teacher=teacher, epoch=3, args=Namespace(lr=1)), tmp_path / 'full.pth')
    with pytest.raises(ValueError, match=r'holds more than tensors: objects of argparse.Namespace.*--trust'):
        convert_dino(str(tmp_path / 'full.pth'), tmp_path / 'out.pth')
    convert_dino(str(tmp_path / 'full.pth'), tmp_path / 'out.pth', trust=True)
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert torch.equal(written['ln1.bias'], state['norm.bias'])


# ---- what is no DINO transformer


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(drop='blocks.1.attn.qkv.bias'), 'missing layers.1.attn.qkv.bias; left over none'),
        (dict(drop='norm.weight'), 'missing ln1.weight; left over none'),
        (dict(add='blocks.0.gamma'), 'missing none; left over layers.0.gamma'),
        (dict(drop='blocks.'), 'missing layers.0.attn.proj.bias, .* and 8 more; left over none'),
        (dict(rows=6), 'positional embedding of 5 patches, which make no square grid'),
    ],
)
def test_incomplete_or_foreign_weights(dino_state, tmp_path, change, message):
    dropped = change.get('drop', '?')
    state = {key: value for key, value in dino_state(128, 2, 8, 4).items() if not key.startswith(dropped)}
    if 'add' in change:
        state[change['add']] = torch.zeros(1)
    if 'rows' in change:
        state['pos_embed'] = state['pos_embed'][:, : change['rows']]
    torch.save(state, tmp_path / 'in.pth')
    with pytest.raises(ValueError, match=message):
        convert_dino(str(tmp_path / 'in.pth'), tmp_path / 'out.pth')
    assert [file.name for file in tmp_path.iterdir()] == ['in.pth']


def test_known_width_with_missing_blocks(dino_state, tmp_path):
    torch.save(dino_state(384, 2, 16, 2), tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='holds 2 blocks of 384 channels, and a deit-small has 12: .*incomplete'):
        convert_dino(str(tmp_path / 'in.pth'), tmp_path / 'out.pth')


def test_other_content(tmp_path):
    torch.save([1, 2], tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='in.pth holds no state dict of tensors'):
        convert_dino(str(tmp_path / 'in.pth'), tmp_path / 'out.pth')
    with pytest.raises(FileNotFoundError, match='There is no checkpoint .*absent.pth'):
        convert_dino(str(tmp_path / 'absent.pth'), tmp_path / 'out.pth')


# ---- the command


def test_command(dino_state, tmp_path, monkeypatch, capsys):
    torch.save(dino_state(128, 2, 8, 4), tmp_path / 'in.pth')
    monkeypatch.setattr(sys, 'argv', ['dino2mmpretrain.py', str(tmp_path / 'in.pth'), str(tmp_path / 'out.pth')])
    dino2mmpretrain.main()
    printed = capsys.readouterr().out
    assert 'out.pth' in printed
    options = eval(printed.split('backbone: ')[1])
    backbone = MODELS.build(options)
    backbone.init_weights()
    monkeypatch.setattr(sys, 'argv', ['dino2mmpretrain.py', str(tmp_path / 'absent.pth'), str(tmp_path / 'out.pth')])
    with pytest.raises(SystemExit, match='dino2mmpretrain.py: There is no checkpoint'):
        dino2mmpretrain.main()
