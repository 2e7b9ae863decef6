"""Whether the weights of a checkpoint fill the model that they are read into."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from omh_mmseg.checkpoint_files import FILE, CheckpointError
from omh_mmseg.shipped import command_line
from omh_mmseg.utils.text import first_few

TRAINING_PARTS = ('iteration', 'project_head', 'ema_head', 'agnostic_pool', 'specific_pool', 'eigen_lookups')
"""Parts of a segmentor by which nothing is predicted; HP's authors keep neither project head nor pools."""


@dataclass(frozen=True)
class Purpose:
    """What weights are read for, and which parts of a model, its direct children and buffers, may then differ.

    Attributes:
        may_lack: Parts that the weights may lack as a whole.
        may_have: Parts that the model may lack.
        fresh: Parts that are not read, whether the weights have them or not.
        remedy: What the user can do where they do not fit.
    """

    may_lack: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    remedy: str = 'Use the config of its run.'


PREDICT = Purpose(('linear_probe', *TRAINING_PARTS), ('omh_head', 'linear_probe'))
RESUME = Purpose(remedy='Resume with the config of its run; a new run starts from its weights with load_from alone.')


def start(fresh: Sequence[str] = ()) -> Purpose:
    """A new training from the weights of another, whose parts ``fresh`` begin anew."""
    others = ('omh_head', 'linear_probe', *TRAINING_PARTS)
    remedy = (
        'Use the config of its run, or name the parts of the model that shall begin anew, e.g. --cfg-options '
        'default_hooks.checkpoint_check.fresh_parts="[cluster_probe,linear_probe,omh_head]".'
    )
    return Purpose(others, others, tuple(fresh), remedy)


def file_of(state: Mapping[str, Any]) -> str | None:
    """The file that one of mmengine's loaders has read a state dict from."""
    return (getattr(state, '_metadata', None) or {}).get('', {}).get(FILE)


def tensors_of(state: Mapping[str, Any], file: str) -> dict[str, Tensor]:
    """The weights of a state dict, by their keys without ``module.``.

    Raises:
        CheckpointError: There are none, or something else among them.
    """
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    if not state:
        raise CheckpointError(f'{file} has no weights: its state dict is empty. Use the checkpoint of a run.')
    other = sorted(key for key, value in state.items() if not isinstance(value, Tensor))
    if other:
        raise CheckpointError(
            f'{file} has no state dict of tensors: {first_few(other)} hold something else. Use the checkpoint of a run.'
        )
    return state


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with values that are not finite."""
    floating = {name: one for name, one in tensors.items() if one.is_floating_point() or one.is_complex()}
    return sorted(name for name, one in floating.items() if not bool(torch.isfinite(one).all()))


def fill_model(model: Any, state: dict[str, Any], purpose: Purpose = PREDICT) -> str:
    """Load weights into a segmentor, all of whose parameters and buffers they must fill.

    What is left out on purpose (OMH, the linear probe) is named in one warning. A model that predicts loses the linear
    probe that its weights lack, whose classes would be random. A backbone that they lack is read from its own
    ``checkpoint``.

    Args:
        model: A `PredictingSegmentor`.
        state: Weights by key. Afterwards those of the model, so that a loader that goes on with it finds nothing to
            warn of.
        purpose: What they are read for.

    Returns:
        The file that they come from.

    Raises:
        CheckpointError: Weights are missing, left over, of another shape or not finite; the model is filled in part.
    """
    file = file_of(state) or 'the checkpoint'
    own, tensors = model.state_dict(), tensors_of(state, file)
    known = _children(own) | _children(tensors)
    if not known.issuperset(purpose.fresh):
        raise CheckpointError(f'fresh_parts must be among {sorted(known)}; got {sorted(set(purpose.fresh) - known)}.')
    given = {key: value for key, value in tensors.items() if _part(key) not in purpose.fresh}
    missing, unexpected, differing = _load(model, given, _versions(state), file)
    if read_lacking_backbone(model, given):
        missing = [key for key in missing if not key.startswith('backbone.')]
    lacking = (set(map(_part, missing)) - _children(given)) & {*purpose.may_lack, *purpose.fresh}
    left = (set(map(_part, unexpected)) - _children(own)) & set(purpose.may_have)
    mismatch = Mismatch(
        [key for key in missing if _part(key) not in lacking],
        [key for key in unexpected if _part(key) not in left],
        differing,
        not_finite(given),
    )
    if any(vars(mismatch).values()):
        raise CheckpointError(f'{file} {mismatch.describe(given, own, purpose)}')
    if purpose is PREDICT and 'linear_probe' in lacking:
        model.linear_probe = None
    _warn(file, purpose, lacking, left)
    state.clear()
    state.update(model.state_dict())
    (getattr(state, '_metadata', None) or {}).get('', {}).pop(FILE, None)
    return file


def read_lacking_backbone(model: Any, state: Mapping[str, Any]) -> bool:
    """Fill the backbone of a segmentor from its own ``checkpoint`` if a state dict has none; whether it did."""
    if 'backbone' in _children(key.removeprefix('module.') for key in state) or model.backbone.checkpoint is None:
        return False
    model.backbone.init_weights()
    return True


@dataclass(frozen=True)
class Mismatch:
    """Keys by which weights and model differ.

    Attributes:
        missing: Of the model alone.
        unexpected: Of the weights alone.
        differing: Of both, in other shapes.
        infinite: Of weights that are not finite.
    """

    missing: list[str]
    unexpected: list[str]
    differing: list[str]
    infinite: list[str]

    def describe(self, given: Mapping[str, Tensor], own: Mapping[str, Tensor], purpose: Purpose) -> str:
        """What is wrong with weights, ``given`` for a model's ``own``, and what to do, after the name of their file."""
        if len(self.unexpected) == len(given):
            return (
                f'is of another program: none of its {len(given)} weights ({first_few(sorted(given))}) is one of the '
                "config's model. Use the checkpoint of a run; those of other programs need a converter, such as "
                f'{command_line("model_converters/stego2omh.py")}, and weights of a backbone go to '
                'model.backbone.checkpoint.'
            )
        said = []
        if self.differing:
            key = self.differing[0]
            shapes = ' and '.join(
                f'{tuple(weights[key].shape) if key in weights else "another"} {place}'
                for weights, place in ((given, 'there'), (own, 'here'))
            )
            said.append(
                f'is of another model than the config: {key} is {shapes} ({len(self.differing)} weights differ in '
                f'shape: {first_few(self.differing)})'
            )
        if self.missing:
            said.append(f"lacks {len(self.missing)} weights of the config's model: {first_few(self.missing)}")
        if self.unexpected:
            said.append(f'has {len(self.unexpected)} weights that the model lacks: {first_few(self.unexpected)}')
        if self.infinite:
            said.append(f'has {len(self.infinite)} weights that are not finite: {first_few(self.infinite)}')
        return f'{"; it ".join(said)}. {self._remedy(given, purpose)}'

    def _remedy(self, given: Mapping[str, Tensor], purpose: Purpose) -> str:
        wrong = _children([*self.missing, *self.unexpected, *self.differing])
        if not wrong:
            return 'Use an earlier checkpoint of its run.'
        if purpose is PREDICT and wrong == {'omh_head'} and 'omh_head' not in _children(given):
            return (
                'It is of a host alone, and the levels of OMH would be random: use the config of its run, or leave OMH '
                'out with --cfg-options model.omh_head=None.'
            )
        return purpose.remedy


def _load(
    model: Any, given: Mapping[str, Tensor], versions: dict[str, Any], file: str
) -> tuple[list[str], list[str], list[str]]:
    """Load what fits; keys of the model that are missing, keys that are left over, and keys of another shape."""
    differing: list[str] = []
    # Only the modules' own hooks know which keys they rename and which position embeddings they resize.
    for _ in range(2):
        fitting: Any = OrderedDict({key: value for key, value in given.items() if key not in differing})
        fitting._metadata = versions
        try:
            missing, unexpected = model.load_state_dict(fitting, strict=False)
        except Exception as error:
            named = set(re.findall(r'size mismatch for ([^\s:]+):', str(error)))
            differing += [key for key in given if key in named]
            reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
        else:
            missing = [key for key in missing if key not in differing and not key.endswith('num_batches_tracked')]
            return missing, unexpected, differing
    raise CheckpointError(f'{file} is of another model than the config ({reason}). Use the config of its run.')


def _versions(state: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a state dict, by module, less the file."""
    metadata = getattr(state, '_metadata', None) or {}
    return {module: dict(version=entry.get('version')) for module, entry in metadata.items()}


def _children(keys: Iterable[str]) -> set[str]:
    return {key.partition('.')[0] for key in keys}


def _part(key: str) -> str:
    """The part that an entry belongs to: classes and bias of clusters go with their clusters."""
    child, _, rest = key.partition('.')
    if child not in ('assignment', 'cluster_bias'):
        return child
    return 'omh_head' if rest.startswith('pred_level') else 'cluster_probe'


def _warn(file: str, purpose: Purpose, lacking: set[str], left: set[str]) -> None:
    """Name what is left out on purpose, once."""
    said = []
    if purpose is not PREDICT and lacking:
        said.append(f'{", ".join(sorted(lacking))} of the model begin anew')
    if purpose is PREDICT and 'linear_probe' in lacking:
        said.append('it has no linear probe, so that there are neither masks nor scores of one')
    if left:
        said.append(f"{', '.join(sorted(left))} of it are not used, as the config's model has none")
    if said:
        MMLogger.get_current_instance().warning(f'{file}: {"; ".join(said)}')
