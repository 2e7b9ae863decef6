"""DINO's vision transformers as weights of ``mmpretrain.VisionTransformer``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from omh_mmseg.checkpoint_files import TRAINED_WITH
from omh_mmseg.models.backbones.checkpoint import read_state_dict, unwrap_state_dict
from omh_mmseg.models.backbones.key_converters import dino_to_mmpretrain, dinov2_to_mmpretrain
from omh_mmseg.models.converters.foreign_pickle import read_foreign_checkpoint
from omh_mmseg.models.utils.loaded_weights import not_finite
from omh_mmseg.utils.digests import backbone_digest
from omh_mmseg.utils.downloads import is_address
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.text import first_few

BLOCK_PARTS = ('ln1', 'attn.qkv', 'attn.proj', 'ln2', 'ffn.layers.0.0', 'ffn.layers.1')
# docs/methods/features.md 1.1: mmpretrain's name, depth and heads by embedding.
ARCHITECTURES = {384: ('deit-small', 12, 6), 768: ('deit-base', 12, 12)}
HEAD_DIMS = 64
LISTED_KEYS = 4


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a vision transformer, read from its weights.

    Attributes:
        embed_dims: C.
        depth: Number of blocks.
        feedforward_channels: Width of the blocks' hidden layer.
        patch_size: Side of a patch in pixels.
        grid: Side of the native grid in tokens.
    """

    embed_dims: int
    depth: int
    feedforward_channels: int
    patch_size: int
    grid: int

    @property
    def short_name(self) -> str | None:
        """``vit-s8``, ``vit-s16``, ``vit-b8`` or ``vit-b16``; None for other sizes."""
        letter = {384: 's', 768: 'b'}.get(self.embed_dims)
        known = letter is not None and self.depth == 12 and self.patch_size in (8, 16)
        return f'vit-{letter}{self.patch_size}' if known else None

    def config(self) -> dict[str, Any]:
        """Config of the ``mmpretrain.VisionTransformer`` that takes the weights; other sizes count 64 dims per head."""
        name, depth, _ = ARCHITECTURES.get(self.embed_dims, (None, None, None))
        arch: str | dict[str, int]
        if name is not None and depth == self.depth and self.feedforward_channels == 4 * self.embed_dims:
            arch = name
        else:
            arch = dict(
                embed_dims=self.embed_dims,
                num_layers=self.depth,
                num_heads=max(self.embed_dims // HEAD_DIMS, 1),
                feedforward_channels=self.feedforward_channels,
            )
        return dict(
            type='mmpretrain.VisionTransformer',
            arch=arch,
            img_size=self.grid * self.patch_size,
            patch_size=self.patch_size,
            out_type='featmap',
        )


def transformer_shape(state: Mapping[str, Tensor], source: str) -> TransformerShape:
    """Check that a state dict is a whole vision transformer under mmpretrain's names, and measure it.

    Args:
        state: The weights.
        source: Name of the file, for messages.

    Raises:
        ValueError: If entries are missing or left over, or the positional embedding belongs to no square grid.
    """
    depth = 1 + max((int(key.split('.')[1]) for key in state if re.match(r'layers\.\d+\.', key)), default=-1)
    expected = {'cls_token', 'pos_embed', 'patch_embed.projection.weight', 'patch_embed.projection.bias'}
    modules = ['ln1', *(f'layers.{block}.{part}' for block in range(max(depth, 1)) for part in BLOCK_PARTS)]
    expected |= {f'{module}.{kind}' for module in modules for kind in ('weight', 'bias')}
    if expected != state.keys():
        raise ValueError(
            f"{source} is not a vision transformer under DINO's names: missing {listed(expected - state.keys())}; left "
            f'over {listed(state.keys() - expected)} (in the names of mmpretrain).'
        )
    embed_dims, _, patch_size, _ = sized(state, 'patch_embed.projection.weight', 4, source)
    known = ARCHITECTURES.get(embed_dims)
    if known is not None and depth != known[1]:
        raise ValueError(
            f'{source} holds {depth} blocks of {embed_dims} channels, and a {known[0]} has {known[1]}: the file is '
            'incomplete or of another architecture.'
        )
    tokens = sized(state, 'pos_embed', 3, source)[1] - 1
    grid = isqrt(tokens)
    if grid * grid != tokens:
        raise ValueError(f'{source} has a positional embedding of {tokens} patches, which make no square grid.')
    hidden, _ = sized(state, 'layers.0.ffn.layers.0.0.weight', 2, source)
    return TransformerShape(embed_dims, depth, hidden, patch_size, grid)


def convert_dino(source: str, target: str | Path, trust: bool = False) -> TransformerShape:
    """Write DINO's weights as a checkpoint that ``mmpretrain.VisionTransformer`` loads strictly.

    Args:
        source: Path or URL of a published backbone or, as a path, of a whole training checkpoint, whose teacher counts.
        target: The file to write: ``state_dict`` and ``meta`` of plain types.
        trust: See `read_foreign_checkpoint`; whole training checkpoints hold pickled objects.

    Returns:
        The transformer's sizes.

    Raises:
        ValueError: If the source is no such file, or not a whole transformer.
        FileNotFoundError: If there is no source.
        DownloadError: If a URL cannot be read, or gives another file.
    """
    if is_address(source):
        named = read_state_dict(source)
    else:
        named = unwrap_state_dict(read_foreign_checkpoint(source, trust), source)
    state = dino_to_mmpretrain(named)
    shape = transformer_shape(state, source)
    write_checkpoint(target, state, source, backbone=shape.config())
    return shape


NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], swaps_channels=True)
"""Of all three hosts' code (docs/methods/features.md 1.7), in the units of our images, which have blue first."""


@dataclass(frozen=True)
class ConvertedHost:
    """A converted checkpoint of a host.

    Attributes:
        state_dict: Under the names of our host.
        backbone: Sizes of its backbone.
        channels: D of the code.
        num_classes: K of the probes.
        extra_clusters: Clusters of the cluster probe beyond the K; None for a probe that never has any.
        left_out: Names of the entries that our model has no place for.
    """

    state_dict: dict[str, Tensor]
    backbone: TransformerShape
    channels: int
    num_classes: int
    extra_clusters: int | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def model_options(self) -> dict[str, Any]:
        """Config options that the weights need, where configs of the host may say otherwise."""
        head = any(key.startswith('decode_head.') for key in self.state_dict)
        options = {'model.decode_head.channels': self.channels} if head else {}
        extra = self.extra_clusters
        return options if extra is None else options | {'model.cluster_probe.extra_clusters': extra}

    @property
    def known(self) -> dict[str, Any]:
        """What else the file says of its run, for ``meta``."""
        return {}

    def write(self, target: str | Path, source: str | Path) -> None:
        """Write it with the number of its training steps, and what is known of its run, see `write_checkpoint`."""
        weights = backbone_digest(self.state_dict)
        record = dict(normalisation=NORMALISATION, weights=weights, num_classes=self.num_classes)
        meta = {'iter': int(self.state_dict['iteration']), TRAINED_WITH: record, **self.known}
        write_checkpoint(target, self.state_dict, source, **meta)


Converted = TypeVar('Converted', bound=ConvertedHost)


def convert_file(
    convert: Callable[[Any, str], Converted], source: str | Path, target: str | Path, trust: bool = False
) -> Converted:
    """Write a checkpoint of a reference implementation as one that ``tools/test.py`` loads.

    Args:
        convert: Of the host, such as `convert_stego_checkpoint`.
        source: The file.
        target: The file to write: ``state_dict`` and ``meta`` of plain types.
        trust: See `read_foreign_checkpoint`; Lightning's files hold pickled settings.

    Returns:
        What was written, and what the file says of its run.

    Raises:
        FileNotFoundError: If there is no source.
        ValueError: See `read_foreign_checkpoint` and ``convert``.
    """
    content = read_foreign_checkpoint(source, trust)
    state = content.get('state_dict', content) if isinstance(content, Mapping) else {}
    if isinstance(state, Mapping) and not all(isinstance(key, str) for key in state):
        raise ValueError(f'{source} is no checkpoint of this kind: the keys of its weights are no names.')
    converted = convert(content, str(source))
    if bad := not_finite(converted.state_dict):
        raise ValueError(f'{source} has weights that are not finite: {listed(bad)}. Its training had diverged.')
    converted.write(target, source)
    return converted


def split_backbone(
    entries: Mapping[str, Any], prefix: str, source: str
) -> tuple[dict[str, Tensor], TransformerShape, dict[str, Any]]:
    """Convert the entries of a transformer below a prefix, with or without DINOv2's layer scales.

    Args:
        entries: Of a checkpoint of a whole model.
        prefix: What the transformer's names begin with.
        source: Name of the file, for messages.

    Returns:
        The transformer's weights under the names of our hosts, its sizes, and the other entries.

    Raises:
        ValueError: See `transformer_shape`.
    """
    inner = {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}
    convert = dinov2_to_mmpretrain if 'blocks.0.ls1.gamma' in inner else dino_to_mmpretrain
    weights = convert(inner)
    shape = transformer_shape({key: value for key, value in weights.items() if '.gamma' not in key}, source)
    others = {key: value for key, value in entries.items() if not key.startswith(prefix)}
    return {f'backbone.backbone.{key}': value for key, value in weights.items()}, shape, others


def sized(parts: Mapping[str, Any], key: str, dims: int, source: str) -> tuple[int, ...]:
    """Sizes of a tensor of a checkpoint; ValueError if it is none of so many dimensions."""
    value = parts.get(key)
    if not isinstance(value, Tensor) or value.dim() != dims:
        found = f'of {tuple(value.shape)}' if isinstance(value, Tensor) else f'a {type(value).__name__}'
        raise ValueError(f'{source}: {key} should be a tensor of {dims} dimensions, and is {found}.')
    return tuple(value.shape)


def check_shapes(
    parts: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, ...]], source: str, names: str, more: str = ''
) -> None:
    """Raise ValueError if parts of a checkpoint do not fit each other.

    Args:
        parts: Tensors by name.
        sizes: Those that the others ask for, by name; parts that are not there do not count.
        source: Name of the file.
        names: Whose names they are, for the message.
        more: What else is wrong.
    """
    shapes = {key: tuple(parts[key].shape) for key in sizes if key in parts}
    wrong = [f'{key} is {shape}, not {sizes[key]}' for key, shape in shapes.items() if shape != sizes[key]]
    wrong += [f'{key} holds {parts[key].dtype}' for key in shapes if not parts[key].is_floating_point()]
    wrong += [more] if more else []
    if wrong:
        raise ValueError(f'The parts of {source} do not fit each other: {"; ".join(wrong)} (in the names of {names}).')


def training_steps(content: Mapping[str, Any], key: str = 'global_step') -> Tensor:
    """The training steps that a checkpoint counts, int64 scalar; 0 where it does not."""
    steps = content.get(key, 0)
    return torch.tensor(steps if isinstance(steps, int) else 0, dtype=torch.long)


def write_checkpoint(target: str | Path, state: Mapping[str, Tensor], source: str | Path, **meta: Any) -> None:
    """Write converted weights, each in memory of its own, and ``meta`` of plain types with the source's name."""
    weights = {key: value.detach().clone() for key, value in state.items()}
    with replaced_when_complete(target) as file:
        torch.save(dict(state_dict=weights, meta=dict(source=Path(source).name, **meta)), file)


def listed(keys: Iterable[object]) -> str:
    """The first few of some keys, sorted, as text."""
    return first_few(sorted(map(str, keys)), LISTED_KEYS) or 'none'
