"""SmooSeg's published Lightning checkpoints as checkpoints of our `SmooSeg`.

Source: docs/methods/features.md 2.1, docs/methods/smooseg.md 2.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from omh_mmseg.models.converters.dino import ConvertedHost, listed, split_backbone, training_steps
from omh_mmseg.models.converters.foreign_pickle import plain_settings

# Words in the names of the two sets of prototypes that distinguish them, unless the names are given.
STUDENT_WORDS = ('student', 'local')
TEACHER_WORDS = ('teacher', 'global', 'ema')


@dataclass(frozen=True)
class ConvertedSmooSeg(ConvertedHost):
    """A converted checkpoint.

    Attributes:
        settings: What the file says of its run, as plain values; empty if it says nothing.
        taken: Names in the file of the head's layers and the prototypes, by ours.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, Any]:
        """Settings."""
        return dict(settings=self.settings)


def convert_smooseg_checkpoint(
    content: Any, source: str, student: str | None = None, teacher: str | None = None
) -> ConvertedSmooSeg:
    """Convert the content of a Lightning checkpoint.

    The parts are found by what they are, not by how the file calls them: the backbone by DINO's names below any prefix,
    the three 1x1 convolutions of the head by their shapes. Student and teacher have one shape and differ in their
    names alone, which can be given.

    Args:
        content: From `read_foreign_checkpoint`.
        source: Name of the file, for messages.
        student: Name of the student prototypes (K, D) in the file; None to look for one that says so.
        teacher: Name of the teacher prototypes, likewise.

    Raises:
        ValueError: If parts are missing or ambiguous; what was looked for and what the file holds are named.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get('state_dict'), Mapping):
        raise ValueError(f"{source} is not a Lightning checkpoint with a 'state_dict' in it.")
    named = {key: value for key, value in content['state_dict'].items() if isinstance(value, Tensor)}
    prefixes = [key.removesuffix('cls_token') for key in named if key.endswith('cls_token')]
    if len(prefixes) != 1 or not prefixes[0]:
        raise ValueError(
            f"{source} should hold one backbone with DINO's names below a prefix, as in 'PREFIX.cls_token'; found "
            f'{len(prefixes)} among the entries {listed(named)}.'
        )
    state, shape, others = split_backbone(named, prefixes[0], source)
    layers = _head(others, shape.embed_dims, source)
    channels = others[f'{layers["decode_head.linear"]}.weight'].shape[0]
    matrices = [key for key, value in others.items() if value.dim() == 2 and value.shape[1] == channels]
    prototypes = {
        'cluster_probe.student': _prototypes(matrices, student, STUDENT_WORDS, '--student', source),
        'cluster_probe.centres': _prototypes(matrices, teacher, TEACHER_WORDS, '--teacher', source),
    }
    first, second = prototypes.values()
    if first == second or others[first].shape != others[second].shape:
        raise ValueError(
            f'{source}: student {first!r} {tuple(others[first].shape)} and teacher {second!r} '
            f'{tuple(others[second].shape)} must be two entries of one shape. Name them with --student and --teacher.'
        )
    for ours, theirs in layers.items():
        state |= {f'{ours}.{kind}': others.pop(f'{theirs}.{kind}') for kind in ('weight', 'bias')}
    state |= {ours: others.pop(theirs) for ours, theirs in prototypes.items()}
    state['iteration'] = training_steps(content)
    settings = plain_settings(content.get('hyper_parameters', {}))
    return ConvertedSmooSeg(
        state, shape, channels, len(state['cluster_probe.centres']), None, list(others), settings,
        {**layers, **prototypes},
    )  # fmt: skip


def _head(others: dict[str, Tensor], embed_dims: int, source: str) -> dict[str, str]:
    """Names of the three layers in the file, by ours.

    The hidden layer is the one from C to C; of the two from C to D, the one beside it ends its branch.
    """
    convolutions = {
        key.removesuffix('.weight'): tuple(value.shape[:2])
        for key, value in others.items()
        if key.endswith('.weight') and value.dim() == 4 and f'{key.removesuffix("weight")}bias' in others
    }
    hidden = [name for name, sizes in convolutions.items() if sizes == (embed_dims, embed_dims)]
    parents = {name.rpartition('.')[0] for name in hidden}
    ends = [name for name, sizes in convolutions.items() if sizes[1] == embed_dims and name not in hidden]
    out = [name for name in ends if name.rpartition('.')[0] in parents]
    linear = [name for name in ends if name not in out]
    if not len(hidden) == len(out) == len(linear) == 1 or convolutions[out[0]] != convolutions[linear[0]]:
        raise ValueError(
            f'{source} should hold three 1x1 convolutions with bias beside a backbone of C = {embed_dims} channels: '
            f'C to C and C to D in one branch, C to D in the other; found {convolutions or "none"}.'
        )
    return {'decode_head.linear': linear[0], 'decode_head.nonlinear.0': hidden[0], 'decode_head.nonlinear.2': out[0]}


def _prototypes(matrices: list[str], name: str | None, words: tuple[str, ...], option: str, source: str) -> str:
    if name is None:
        candidates = [key for key in matrices if any(word in key.lower() for word in words)]
    else:
        candidates = [key for key in matrices if key == name]
    if len(candidates) != 1:
        wanted = f'a name with one of {words}' if name is None else repr(name)
        raise ValueError(
            f'{source} holds {len(candidates)} matrices K x D under {wanted}; its matrices of that form are '
            f'{matrices or "none"}. Say which is meant with {option}.'
        )
    return candidates[0]
