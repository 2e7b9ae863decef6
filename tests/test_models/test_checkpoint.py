from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from omh_mmseg.models.backbones import FrozenBackbone, checkpoint
from omh_mmseg.models.backbones.checkpoint import read_state_dict
from omh_mmseg.models.backbones.key_converters import dino_to_mmpretrain

DINO_NAMES = {
    'patch_embed.projection.': 'patch_embed.proj.',
    '.ln1.': '.norm1.',
    '.ln2.': '.norm2.',
    '.ffn.layers.0.0.': '.mlp.fc1.',
    '.ffn.layers.1.': '.mlp.fc2.',
    'layers.': 'blocks.',
}


def dino_name(key: str) -> str:
    """DINO's name of a key of ``mmpretrain.VisionTransformer``."""
    if key.startswith('ln1.'):
        return key.replace('ln1.', 'norm.')
    for ours, theirs in DINO_NAMES.items():
        key = key.replace(ours, theirs)
    return key


@pytest.fixture
def weights(tiny_vit) -> dict[str, torch.Tensor]:
    """Distinct random values for every parameter of the tiny ViT, by mmpretrain's names."""
    state = FrozenBackbone(tiny_vit).backbone.state_dict()
    return {key: torch.randn_like(value) for key, value in state.items()}


@pytest.fixture
def load(tiny_vit, tmp_path) -> Callable[..., FrozenBackbone]:
    """Write an object to a file and load it into the tiny ViT."""

    def write_and_load(content: object, converter: str | None = None) -> FrozenBackbone:
        torch.save(content, tmp_path / 'weights.pth')
        backbone = FrozenBackbone(tiny_vit, str(tmp_path / 'weights.pth'), converter)
        backbone.init_weights()
        return backbone

    return write_and_load


def assert_loaded(backbone: FrozenBackbone, weights: dict[str, torch.Tensor]) -> None:
    loaded = backbone.backbone.state_dict()
    assert list(loaded) == list(weights)
    for key, value in weights.items():
        assert torch.equal(loaded[key], value), key
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_own_names(load, weights):
    assert_loaded(load(weights), weights)


@pytest.mark.parametrize('wrapper', ['state_dict', 'model', 'teacher'])
def test_wrapped_state_dicts(load, weights, wrapper):
    assert_loaded(load({wrapper: weights, 'epoch': 3}), weights)


def test_backbone_of_a_whole_model(load, weights):
    whole = {f'backbone.{key}': value for key, value in weights.items()} | {'head.fc.weight': torch.zeros(2)}
    assert_loaded(load(dict(state_dict=whole, meta={})), weights)


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'module.backbone.'])
def test_dino_names(load, weights, prefix):
    named = {prefix + dino_name(key): value for key, value in weights.items()}
    named[f'{prefix}head.mlp.0.weight'] = torch.zeros(2)
    assert_loaded(load(dict(teacher=named), 'dino'), weights)


def test_dino_names_of_every_parameter(weights):
    named = {dino_name(key): value for key, value in weights.items()}
    assert {'blocks.0.attn.qkv.weight', 'blocks.1.mlp.fc2.bias', 'norm.weight', 'patch_embed.proj.bias'} <= set(named)
    assert list(dino_to_mmpretrain(named)) == list(weights)


@pytest.fixture
def reference(golden, tmp_path) -> tuple[dict, FrozenBackbone]:
    """The arrays of the reference transformer, and ours with its weights."""
    arrays = golden('dino_vit')
    state = {key[3:]: torch.tensor(value) for key, value in arrays.items() if key.startswith('sd/')}
    torch.save(state, tmp_path / 'dino.pth')
    depth = sum(key.endswith('.norm1.weight') for key in state)
    embed_dims, patch = state['patch_embed.proj.weight'].shape[0], state['patch_embed.proj.weight'].shape[-1]
    arch = dict(
        embed_dims=embed_dims, num_layers=depth, num_heads=arrays['native/attn'].shape[1],
        feedforward_channels=state['blocks.0.mlp.fc1.weight'].shape[0],
    )  # fmt: skip
    vit = dict(
        type='mmpretrain.VisionTransformer', arch=arch, img_size=arrays['native/x'].shape[-1], patch_size=patch,
        out_type='featmap',
    )  # fmt: skip
    backbone = FrozenBackbone(vit, str(tmp_path / 'dino.pth'), 'dino', position_interpolation='dino')
    backbone.init_weights()
    return arrays, backbone


@pytest.mark.golden
@pytest.mark.parametrize('size', ['native', 'wide', 'large'])
def test_converted_dino_weights_give_the_reference_numbers(reference, size):
    arrays, backbone = reference
    expected = {name: torch.tensor(arrays[f'{size}/{name}']) for name in ('x', 'feat', 'key', 'attn')}
    taps = backbone.taps(expected['x'], attention='heads')
    for name, found in zip(('feat', 'key', 'attn'), taps):
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: name + text)
    mean = backbone.taps(expected['x'], keys=False, attention='mean').attention
    torch.testing.assert_close(mean, expected['attn'].mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.golden
def test_resize_by_size_misses_the_reference_numbers(reference):
    arrays, backbone = reference
    backbone.position_interpolation = 'size'
    found = backbone(torch.tensor(arrays['large/x']))
    assert (found - torch.tensor(arrays['large/feat'])).abs().max() > 1e-3


def test_real_weights_of_mobilenet(shared_dir):
    path = shared_dir / 'weights' / 'mobilenet_v2_imagenet_mmpretrain.pth'
    if not path.is_file():
        pytest.skip(f'no {path}')
    backbone = FrozenBackbone(
        dict(type='mmpretrain.MobileNetV2', widen_factor=1.0, out_indices=(3, 4)), str(path), out_indices=(0, 1)
    )
    backbone.init_weights()
    assert (backbone.out_channels, backbone.stride) == (160, 16)
    original = read_state_dict(str(path))
    assert len(original) > 200
    assert all(torch.equal(value, original[key]) for key, value in backbone.backbone.state_dict().items())


def test_weights_shipped_with_the_package(load, weights, tmp_path, monkeypatch):
    load(weights)
    (tmp_path / 'assets').mkdir()
    shutil.move(tmp_path / 'weights.pth', tmp_path / 'assets' / 'shipped.pth')
    monkeypatch.setattr('omh_mmseg.shipped.PACKAGE', tmp_path)
    assert list(read_state_dict('omh_mmseg://shipped.pth')) == list(weights)
    with pytest.raises(FileNotFoundError, match='No backbone weights at .*absent.pth'):
        read_state_dict('omh_mmseg://absent.pth')


def test_digest_of_a_local_file(load, weights, tmp_path, tiny_vit):
    load(weights)
    path = tmp_path / 'weights.pth'
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for digest in (sha256, sha256[:8].upper()):
        backbone = FrozenBackbone(tiny_vit, f'{path}#sha256={digest}')
        backbone.init_weights()
        assert_loaded(backbone, weights)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path} has the SHA-256 .*, but one that begins with {sha256} was asked for'):
        read_state_dict(f'{path}#sha256={sha256}')
    with pytest.raises(ValueError, match="sha256 must be 8 to 64 hexadecimal digits; got 'abc'"):
        read_state_dict(f'{path}#sha256=abc')
    with pytest.raises(FileNotFoundError, match='No backbone weights at .*absent.pth. Set'):
        read_state_dict(f'absent.pth#sha256={sha256}')


def test_address(serve, weights, tiny_vit):
    address = serve.add('folder/weights.pth.tar?version=1', weights)
    for _ in range(2):
        backbone = FrozenBackbone(tiny_vit, address)
        backbone.init_weights()
        assert_loaded(backbone, weights)
    assert serve.asked == ['/folder/weights.pth.tar?version=1']


def test_address_of_something_else(serve, weights):
    """A page in place of the file has the announced length: it must not stay in its place."""
    address = serve.add('weights.pth', b'<html>Please log in</html>')
    with pytest.raises(ValueError, match=f'{address} holds more than tensors and plain values, or is damaged'):
        read_state_dict(address)
    serve.add('weights.pth', weights)
    assert list(read_state_dict(address)) == list(weights)


def test_safetensors(weights, tmp_path, tiny_vit):
    library = pytest.importorskip('safetensors.torch')
    path = tmp_path / 'weights.safetensors'
    library.save_file(weights, path)
    backbone = FrozenBackbone(tiny_vit, str(path))
    backbone.init_weights()
    assert_loaded(backbone, weights)
    path.write_bytes(b'nonsense')
    with pytest.raises(ValueError, match='weights.safetensors is damaged or no checkpoint'):
        read_state_dict(str(path))


def test_safetensors_without_the_library(monkeypatch, tmp_path):
    path = tmp_path / 'weights.safetensors'
    path.touch()
    monkeypatch.setattr(checkpoint, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='with the library safetensors, which is not installed: pip install'):
        read_state_dict(str(path))


# ---- what does not fit


def test_missing_file(tiny_vit, tmp_path):
    backbone = FrozenBackbone(tiny_vit, str(tmp_path / 'absent.pth'))
    with pytest.raises(FileNotFoundError, match='No backbone weights at .*absent.pth.*--cfg-options model.backbone.ch'):
        backbone.init_weights()


def test_unknown_converter(load, weights):
    with pytest.raises(ValueError, match=r"key_converter must be None or one of .*'dino'.*; got 'byol'"):
        load(weights, 'byol')


def test_other_architecture(load, weights):
    weights['pos_embed'] = torch.zeros(1, 5, 48)
    weights['cls_token'] = torch.zeros(1, 1, 48)
    with pytest.raises(ValueError, match='weights of another architecture than the configured backbone'):
        load(weights)


def test_left_over_and_missing_keys(load, weights):
    with pytest.raises(ValueError, match='does not fit VisionTransformer: missing none; left over extra.bias. Set'):
        load(weights | {'extra.bias': torch.zeros(1)})
    weights.pop('pos_embed')
    with pytest.raises(ValueError, match='missing pos_embed; left over none'):
        load(weights)


def test_what_may_be_left_over_or_missing(tiny_vit, weights, tmp_path):
    patterns = dict(allow_left_over=['extra.*'], allow_missing=['ln1.*'])
    stored = {key: value for key, value in weights.items() if not key.startswith('ln1.')}
    torch.save(stored | {'extra.bias': torch.zeros(1), 'extra.weight': torch.zeros(1)}, tmp_path / 'weights.pth')
    backbone = FrozenBackbone(tiny_vit, str(tmp_path / 'weights.pth'), **patterns)
    backbone.init_weights()
    unit = {'ln1.weight': torch.ones(24), 'ln1.bias': torch.zeros(24)}
    assert_loaded(backbone, {key: stored.get(key, unit.get(key)) for key in weights})
    for allowed in patterns:
        others = {name: patterns[name] for name in patterns if name != allowed}
        with pytest.raises(ValueError, match='name what may be so in allow_missing or allow_left_over'):
            FrozenBackbone(tiny_vit, str(tmp_path / 'weights.pth'), **others).init_weights()


def test_dino_names_without_the_converter(load, weights):
    named = {dino_name(key): value for key, value in weights.items()}
    with pytest.raises(ValueError, match=r'and \d+ more; left over .*blocks.0.*and \d+ more. Set key_conv.*dino'):
        load(named)


@pytest.mark.parametrize(
    'content',
    [[1, 2], dict(a=1), dict(state_dict=dict(a='text')), torch.zeros(2)],
    ids=['list', 'number', 'text', 'tensor'],
)
def test_file_without_a_state_dict(load, content):
    with pytest.raises(ValueError, match='holds no state dict of tensors'):
        load(content)


def test_unreadable_file(tiny_vit, tmp_path):
    path = tmp_path / 'broken.pth'
    path.write_bytes(b'<html>404</html>')
    with pytest.raises(ValueError, match='broken.pth holds more than tensors .* or is damaged .*; it was not read'):
        FrozenBackbone(tiny_vit, str(path)).init_weights()


def test_pickled_objects_are_not_executed(tiny_vit, tmp_path):
    path = tmp_path / 'objects.pth'
    torch.save(dict(state_dict={}, path=Path('.')), path)
    with pytest.raises(ValueError, match='objects.pth holds more than tensors .*pathlib.*OMH_TRUST=1'):
        FrozenBackbone(tiny_vit, str(path)).init_weights()


def test_weights_that_are_not_finite(load, weights):
    with pytest.raises(ValueError, match='has 1 weights that are not finite: layers.0.ln1.bias'):
        load(weights | {'layers.0.ln1.bias': torch.full_like(weights['layers.0.ln1.bias'], torch.nan)})
