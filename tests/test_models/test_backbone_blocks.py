"""Every block in configs/_base_/models/backbones: builds, gives maps, and has weights that its package lists."""

from __future__ import annotations

import copy
import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from mmengine.config import Config, ConfigDict

from omh_mmseg.models.backbones import FrozenBackbone
from omh_mmseg.models.backbones.key_converters import KEY_CONVERTERS
from omh_mmseg.utils.downloads import is_address

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FOLDER = CONFIGS / '_base_' / 'models' / 'backbones'
BLOCKS = sorted(path.stem for path in FOLDER.glob('*.py'))
# Channels and stride of the features, and what image sides must be multiples of.
OFFERS = {
    'convnext-t': (384 + 768, 16, 32),
    'densecl_resnet-50': (1024 + 2048, 16, 32),
    'dino_resnet-50': (1024 + 2048, 16, 32),
    'dino_vit-b16': (768, 16, 16),
    'dino_vit-b8': (768, 8, 8),
    'dino_vit-s16': (384, 16, 16),
    'dino_vit-s8': (384, 8, 8),
    'dinov2_vit-b14': (768, 14, 14),
    'dinov2_vit-b14_registers': (768, 14, 14),
    'dinov2_vit-s14': (384, 14, 14),
    'dinov2_vit-s14_registers': (384, 14, 14),
    'imagenet_vit-b16': (768, 16, 16),
    'imagenet_vit-s16': (384, 16, 16),
    'mae_vit-b16': (768, 16, 16),
    'mobilenet-v2': (64 + 96, 16, 16),
    'mocov2_resnet-50': (1024 + 2048, 16, 32),
    'mocov3_vit-b16': (768, 16, 16),
    'mocov3_vit-s16': (384, 16, 16),
    'resnet-18': (256 + 512, 16, 32),
    'resnet-50': (1024 + 2048, 16, 32),
    'swin-b': (512 + 1024, 16, 32),
    'swin-b_mmseg': (512 + 1024, 16, 32),
    'swin-s': (384 + 768, 16, 32),
    'swin-s_mmseg': (384 + 768, 16, 32),
    'swin-t': (384 + 768, 16, 32),
    'swin-t_mmseg': (384 + 768, 16, 32),
    'timm_dino_vit-s8': (384, 8, 8),
    'vit-t8_demo': (192, 8, 8),
}
WITH_KEYS = re.compile(r'(^|_)vit-')
needs_timm = pytest.mark.skipif(find_spec('timm') is None, reason='timm is not installed')


def read(name: str) -> ConfigDict:
    """The parts of the model that the block defines; it has nothing else."""
    (model,) = Config.fromfile(str(FOLDER / f'{name}.py')).to_dict().values()
    return ConfigDict(model)


def random_weights(name: str) -> dict:
    """The block's frozen backbone without its weights."""
    frozen = copy.deepcopy(read(name).backbone.to_dict())
    frozen['checkpoint'] = None
    if 'pretrained' in frozen['backbone']:
        frozen['backbone']['pretrained'] = False
    return frozen


def shallow(frozen: dict) -> dict:
    """The same with as few blocks as its class allows, of the same width; ResNets stay whole."""
    from mmpretrain.models import ConvNeXt, MoCoV3ViT, SwinTransformer, VisionTransformer

    MoCoV3ViT(patch_size=16, arch='mocov3-small')  # enters its size in the list of sizes
    sizes = {'mmpretrain.SwinTransformer': SwinTransformer.arch_zoo, 'mmpretrain.ConvNeXt': ConvNeXt.arch_settings}
    wrapped = frozen['backbone']
    if wrapped['type'] == 'SwinTransformer':
        wrapped['depths'] = (1, 1, 1, 1)
    elif wrapped['type'] == 'mmpretrain.TIMMBackbone':
        wrapped['depth'] = 1
    elif isinstance(wrapped.get('arch'), str):
        arch = dict(sizes.get(wrapped['type'], VisionTransformer.arch_zoo)[wrapped['arch']])
        wrapped['arch'] = arch | (dict(num_layers=1) if 'num_layers' in arch else dict(depths=[1] * 4))
    return frozen


def check(name: str, frozen: dict) -> None:
    backbone = FrozenBackbone(**{key: value for key, value in frozen.items() if key != 'type'})
    channels, stride, multiple = OFFERS[name]
    assert (backbone.out_channels, backbone.stride, backbone.size_multiple) == (channels, stride, multiple)
    assert backbone.has_keys == backbone.has_attention == bool(WITH_KEYS.search(name))
    sides = (2 * multiple, 3 * multiple)
    taps = backbone.taps(torch.randn(1, 3, *sides), keys=backbone.has_keys)
    grid = tuple(side // stride for side in sides)
    assert taps.features.shape == (1, channels, *grid)
    if backbone.has_keys:
        assert taps.keys.shape == (1, channels, *grid)
        assert backbone.num_extra_tokens == (5 if 'registers' in name else 1)


def test_list_is_complete():
    assert set(BLOCKS) == set(OFFERS)


@pytest.mark.parametrize('name', [pytest.param(name, marks=needs_timm) if 'timm' in name else name for name in BLOCKS])
def test_shallow_block(name):
    check(name, shallow(random_weights(name)))


@pytest.mark.slow
@pytest.mark.parametrize('name', [pytest.param(name, marks=needs_timm) if 'timm' in name else name for name in BLOCKS])
def test_whole_block(name):
    check(name, random_weights(name))


@pytest.mark.parametrize('name', BLOCKS)
def test_what_every_block_says(name):
    block = read(name)
    assert set(block) == {'data_preprocessor', 'backbone'}
    frozen, preprocessor = block.backbone, block.data_preprocessor
    assert frozen.type == 'FrozenBackbone' and preprocessor.type == 'ViewsDataPreprocessor'
    assert frozen.get('key_converter') in (None, *KEY_CONVERTERS)
    assert len(preprocessor.mean) == len(preprocessor.std) == 3 and preprocessor.bgr_to_rgb is True
    # Patches of 14 pixels are fitted by a resize inside the backbone, all others by padding to their multiple.
    multiple = 1 if frozen.get('input_fit') == 'resize' else OFFERS[name][2]
    assert preprocessor.size_divisor == preprocessor.test_cfg.size_divisor == multiple
    if OFFERS[name][1] == 14:
        assert frozen.input_fit == 'resize'


def listed_weights() -> set[str]:
    """Paths of the weights in mmpretrain's own lists; the two families keep them on hosts of their own."""
    folder = Path(find_spec('mmpretrain').origin).parent / '.mim' / 'configs'
    texts = [path.read_text(encoding='utf-8') for path in folder.glob('*/metafile.y*ml')]
    return {urlparse(address).path for text in texts for address in re.findall(r'Weights: *(https\S+)', text)}


@pytest.mark.parametrize('name', BLOCKS)
def test_weights_are_those_that_their_publisher_lists(name):
    address = read(name).backbone.get('checkpoint')
    if address is None:
        assert read(name).backbone.backbone.pretrained is True
    elif address.startswith('omh_mmseg://'):
        assert name == 'vit-t8_demo'
    elif urlparse(address).hostname == 'download.openmmlab.com':
        assert urlparse(address).path in listed_weights()
    else:
        places = r'https://(dl\.fbaipublicfiles\.com/(dino|dinov2|moco)/|github\.com/SwinTransformer/storage/releases/)'
        assert re.match(places, address)


@pytest.mark.parametrize('name', BLOCKS)
def test_blocks_say_how_a_download_is_verified(name):
    """By the whole SHA-256 or the digits in the name, else the block says that neither is known."""
    address = read(name).backbone.get('checkpoint') or 'omh_mmseg://timm'
    name_and_digest = re.search(r'#sha256=[0-9a-f]{64}$', address) or re.search(r'-[0-9a-f]{8}\.pth$', address)
    text = (FOLDER / f'{name}.py').read_text()
    unknown = ('Without a known SHA-256: a download is verified by its length', "No SHA-256 of DINO's weights is")
    said = any(sentence in text for sentence in unknown)
    assert said == (not name_and_digest and is_address(address))


def test_official_swin_addresses_are_those_of_mmpretrain_too():
    listed = listed_weights()
    for size in 'tsb':
        assert urlparse(read(f'swin-{size}_mmseg').backbone.checkpoint).path in listed
