"""The key layouts in which weights are published, and their names in the backbones of mmpretrain and mmseg."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
TIMM_VIT_NAMES = (
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
    ('blocks.', 'layers.'),
)
# In this order: the new names of the feed-forward layers have 'layers.' in them.
SWIN_NAMES = (
    ('layers.', 'stages.'),
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('.attn.', '.attn.w_msa.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
)
# Of MoCo v2, MoCo v3, and v3 where the momentum encoder alone was kept; what else their checkpoints hold.
MOCO_ENCODERS = ('encoder_q.', 'base_encoder.', 'momentum_encoder.')
MOCO_REST = ('encoder_k.', 'momentum_encoder.', 'predictor.', 'queue')
# DenseCL trains with the encoder under two names; extracted weights have none of them.
DENSECL_ENCODERS = ('backbone.', 'encoder_q.0.')
DENSECL_REST = ('encoder_q.', 'encoder_k.', 'queue', 'neck.', 'head.')
TIMM_CLASSIFIERS = ('head.fc.', 'head.weight', 'head.bias', 'fc.', 'classifier.')
SWIN_MERGED_PATCHES = (0, 2, 1, 3)
"""Position in the official order (column by column) of each of the four merged patches in that of mm (by rows)."""


def dino_to_mmpretrain(state: StateDict) -> StateDict:
    """Rename the keys of a DINO vision transformer to those of ``mmpretrain.VisionTransformer``.

    They are those of timm, so that this suits DeiT, MoCo v3 and plain ViTs of timm, too.

    Args:
        state: DINO's own names (``blocks.0.attn.qkv.weight``, ``norm.weight``, ...), with or without the prefixes
            ``module.`` and ``backbone.``; projection-head entries of full training checkpoints are left out.
    """
    converted = {}
    for key, value in state.items():
        key = key.removeprefix('module.').removeprefix('backbone.')
        if key.startswith('head.'):
            continue
        key = _renamed(key, TIMM_VIT_NAMES)
        if key.startswith('norm.'):
            key = f'ln1.{key.removeprefix("norm.")}'
        converted[key] = value
    return converted


def dinov2_to_mmpretrain(state: StateDict) -> StateDict:
    """Rename the keys of a DINOv2 vision transformer to those of ``mmpretrain.VisionTransformer``.

    The names are DINO's, and two scales of each block beside them (``layer_scale_init_value`` of mmpretrain); the token
    of masked patches is left out, as only the pretraining uses it. Registers keep their name; `RegisterViT` takes
    them. The giant size has another feed-forward layer and is not converted.

    Args:
        state: DINOv2's own names (``blocks.0.ls1.gamma``, ...), prefixed or not, see `dino_to_mmpretrain`.
    """
    converted = {}
    for key, value in dino_to_mmpretrain(state).items():
        if key != 'mask_token':
            key = key.replace('.ls1.gamma', '.attn.gamma1.weight').replace('.ls2.gamma', '.ffn.gamma2.weight')
            converted[key] = value
    return converted


def mae_to_mmpretrain(state: StateDict) -> StateDict:
    """Rename the keys of a masked autoencoder's encoder, as of DINO; its decoder and mask token are left out."""
    kept = {key: value for key, value in state.items() if not key.startswith(('decoder_', 'mask_token'))}
    return dino_to_mmpretrain(kept)


def moco_to_mm(state: StateDict) -> StateDict:
    """Take the encoder out of a training checkpoint of MoCo v2 or v3, a ResNet or a vision transformer.

    The trained encoder is taken (``module.encoder_q.``, ``module.base_encoder.``), the momentum encoder where there is
    no other. Projection heads, predictor and queue are left out; entries of any other name stay, and are an error on
    loading.
    """
    encoder = _encoder(state, MOCO_ENCODERS, MOCO_REST)
    if any(key.startswith('blocks.') for key in encoder):
        return dino_to_mmpretrain(encoder)
    return torchvision_to_mm(encoder)


def densecl_to_mm(state: StateDict) -> StateDict:
    """Take the ResNet out of a checkpoint of DenseCL: of the whole training, or with the backbone extracted."""
    return torchvision_to_mm(_encoder(state, DENSECL_ENCODERS, DENSECL_REST))


def torchvision_to_mm(state: StateDict) -> StateDict:
    """Take torchvision's ResNets, and DINO's, whose names mmpretrain and mmseg share; the classifier is left out."""
    bare = {key.removeprefix('module.').removeprefix('backbone.'): value for key, value in state.items()}
    return {key: value for key, value in bare.items() if not key.startswith(('fc.', 'head.'))}


def swin_to_mm(state: StateDict) -> StateDict:
    """Rename the keys of an official Swin transformer to those of mmpretrain and mmseg, which are equal.

    Both merge four patches in another order than the original, hence the layers that merge are permuted. The classifier
    is left out, and so are the attention masks, which the forward pass makes. The final norm becomes that of the last
    stage, ``norm3``.
    """
    stages = 1 + max((int(key.split('.')[1]) for key in state if key.startswith('layers.')), default=3)
    converted = {}
    for key, value in state.items():
        if key.startswith('head.') or key.endswith('.attn_mask'):
            continue
        if '.downsample.' in key:
            value = _reordered_merge(value)
        key = f'norm{stages - 1}.{key.removeprefix("norm.")}' if key.startswith('norm.') else key
        converted[_renamed(key, SWIN_NAMES)] = value
    return converted


def timm_to_mm(state: StateDict) -> StateDict:
    """Put a timm model's own names below ``timm_model.``, as in both wrappers; the classifier is left out."""
    bare = {key.removeprefix('module.'): value for key, value in state.items()}
    return {f'timm_model.{key}': value for key, value in bare.items() if not key.startswith(TIMM_CLASSIFIERS)}


KEY_CONVERTERS: dict[str, Callable[[StateDict], StateDict]] = {
    'dino': dino_to_mmpretrain,
    'dinov2': dinov2_to_mmpretrain,
    'mae': mae_to_mmpretrain,
    'moco': moco_to_mm,
    'densecl': densecl_to_mm,
    'torchvision': torchvision_to_mm,
    'swin': swin_to_mm,
    'timm': timm_to_mm,
}
"""Converters by the name that configs give; a project may add its own."""


def _renamed(key: str, names: Sequence[tuple[str, str]]) -> str:
    for old, new in names:
        key = key.replace(old, new)
    return key


def _encoder(state: StateDict, encoders: Sequence[str], rest: Sequence[str]) -> StateDict:
    """The entries below the first of the prefixes that occurs, and those that belong to no known part."""
    bare = {key.removeprefix('module.'): value for key, value in state.items()}
    prefix = next((name for name in encoders if any(key.startswith(name) for key in bare)), None)
    if prefix is None:
        return bare
    encoder = {key.removeprefix(prefix): value for key, value in bare.items() if key.startswith(prefix)}
    known = (prefix, *rest)
    return encoder | {key: value for key, value in bare.items() if not key.startswith(known)}


def _reordered_merge(value: Tensor) -> Tensor:
    """Weights over the last axis (4 C): patch by patch officially, channel by channel in mm, whose unfold does so."""
    patches = value.unflatten(-1, (4, -1))[..., torch.tensor(SWIN_MERGED_PATCHES), :]
    return patches.transpose(-1, -2).flatten(-2)
