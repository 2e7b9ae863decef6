"""Which settings a config can hold: what its parts' constructors take, and what mmengine reads of plain dicts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mmengine.dist import init_dist
from mmengine.registry import FUNCTIONS, Registry
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from mmseg import registry
from torch.distributed import init_process_group
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from omh_mmseg.utils.config_numbers import OPTIONS

ALIKE = 0.8
"""Similarity from which a name is taken for a misspelt one."""
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
REGISTRIES: dict[str, Registry] = {
    **dict.fromkeys(('model', 'tta_model', 'data_preprocessor'), registry.MODELS),
    **dict.fromkeys(('dataset', 'datasets'), registry.DATASETS),
    **dict.fromkeys(
        ('pipeline', 'train_pipeline', 'val_pipeline', 'test_pipeline', 'tta_pipeline', 'transforms'),
        registry.TRANSFORMS,
    ),
    **dict.fromkeys(('sampler', 'batch_sampler'), registry.DATA_SAMPLERS),
    **dict.fromkeys(('default_hooks', 'custom_hooks'), registry.HOOKS),
    **dict.fromkeys(('val_evaluator', 'test_evaluator'), registry.METRICS),
    **dict.fromkeys(('train_cfg', 'val_cfg', 'test_cfg'), registry.LOOPS),
    **dict.fromkeys(('collate_fn', 'worker_init_fn'), FUNCTIONS),
    'visualizer': registry.VISUALIZERS, 'vis_backends': registry.VISBACKENDS,
    'optim_wrapper': registry.OPTIM_WRAPPERS, 'optimizer': registry.OPTIMIZERS,
    'param_scheduler': registry.PARAM_SCHEDULERS, 'log_processor': registry.LOG_PROCESSORS,
}  # fmt: skip
"""Where the types below a key are registered."""
DEFAULT_TYPES = dict(
    optim_wrapper='OptimWrapper', val_cfg='ValLoop', test_cfg='TestLoop', log_processor='LogProcessor',
    visualizer='Visualizer',
)  # fmt: skip
"""Types of parts that mmengine builds without one, by the parts' full keys."""
BESIDE = {
    'optim_wrapper': ('constructor', 'paramwise_cfg', 'optimizer'),
    **dict.fromkeys(LOADERS, ('num_batch_per_epoch', 'disable_subprocess_warning')),
}
"""What the config of a part has beside the options of its constructor."""
NOTES = ('type', '_scope_', '_delete_')
SCALES = ('lr_mult', 'decay_mult')
CONSTRUCTORS = (None, 'DefaultOptimWrapperConstructor', 'TrainableOptimWrapperConstructor')
"""Those whose ``paramwise_cfg`` is known."""
ABSENT = object()
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _names(*functions: Any) -> dict[str, str]:
    """Arguments of functions with their annotations."""
    found = [inspect.signature(function).parameters.values() for function in functions]
    return {one.name: str(one.annotation) for one in (one for group in found for one in group) if one.name != 'self'}


PLAIN: dict[str, dict[str, str]] = {
    'env_cfg': dict.fromkeys(('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'), ''),
    'env_cfg.mp_cfg': _names(set_multi_processing),
    'env_cfg.dist_cfg': _names(init_dist, init_process_group),
    'randomness': _names(Runner.set_randomness),
    'auto_scale_lr': dict.fromkeys(('enable', 'base_batch_size'), ''),
    'optim_wrapper.paramwise_cfg': dict.fromkeys(
        ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'flat_decay_mult',
         'dcn_offset_lr_mult', 'bypass_duplicate'), '',
    ),
    'optim_wrapper.clip_grad': {'type': '', **_names(clip_grad_norm_, clip_grad_value_)},
    'model.train_cfg': {},
    'model.data_preprocessor.test_cfg': dict.fromkeys(('size', 'size_divisor'), ''),
    **dict.fromkeys(LOADERS, _names(DataLoader)),
}  # fmt: skip
"""Options of dicts without a type that mmengine reads, by the dicts' full keys."""
NAMED: dict[str, tuple[str, ...]] = {
    'data_prefix': ('img_path', 'seg_map_path'),
    'metainfo': ('classes', 'palette'),
}
"""Names with a meaning in dicts that may hold others as well, by the last part of the dicts' keys."""


@dataclass(frozen=True)
class Part:
    """A value of a config where it stands.

    Attributes:
        content: Plain data, or `ABSENT`.
        key: Its full key; empty for the config.
        registry: Where its type is registered, if it has one.
        default: What it is where it says nothing.
    """

    content: Any
    key: str = ''
    registry: Registry | None = None
    default: Mapping[str, Any] = field(default_factory=dict)

    def child(self, name: str) -> Part:
        """What stands in it at a name, or at a number of a list."""
        content: Any = ABSENT
        if isinstance(self.content, Mapping):
            content = self.content.get(name, ABSENT)
        elif isinstance(self.content, (list, tuple)) and name.isdigit() and int(name) < len(self.content):
            content = self.content[int(name)]
        key = f'{self.key}.{name}' if self.key else name
        default = getattr(self.kind, 'PART_DEFAULTS', {}).get(name, {})
        if key in DEFAULT_TYPES:
            default = dict(type=DEFAULT_TYPES[key])
        return Part(content, key, REGISTRIES.get(name, self.registry), default)

    @cached_property
    def kind(self) -> Any:
        """The class or function that it is built by; None where it has no type, or one that nobody registered."""
        own = self.content if isinstance(self.content, Mapping) else {}
        kind = own.get('type', self.default.get('type'))
        if isinstance(kind, str):
            scoped = f'{own["_scope_"]}.{kind}' if own.get('_scope_') else kind
            kind = None if self.registry is None else self.registry.get(scoped)
        return kind

    @cached_property
    def options(self) -> dict[str, str] | None:
        """Options that it takes, with their annotations; None where they are not known."""
        options = PLAIN.get(self.key) if self.kind is None else constructor_options(self.kind)
        if options is not None:
            options = options | dict.fromkeys((*BESIDE.get(self.key, ()), *NOTES), '')
        return options

    def at(self, key: str) -> Part:
        """What stands at a full key below it."""
        part = self
        for name in key.split('.'):
            part = part.child(name)
        return part

    def holders(self, key: str) -> Iterator[tuple[Part, str]]:
        """The parts on the way down a full key, each with the name that is looked for in it."""
        part = self
        for name in key.split('.'):
            yield part, name
            part = part.child(name)


def constructor_options(kind: Any) -> dict[str, str] | None:
    """Arguments of a class or function with their annotations; None where they are not known.

    Our classes hand ``**kwargs`` on to the class that they extend, and refuse ``**unknown``; what others do with them
    is not known.
    """
    options: dict[str, str] = {}
    classes = [base for base in inspect.getmro(kind)[:-1] if '__init__' in vars(base)] if inspect.isclass(kind) else []
    for function in [vars(base)['__init__'] for base in classes] if inspect.isclass(kind) else [kind]:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        names = {one.name: str(one.annotation) for one in parameters if one.kind in _KINDS and one.name != 'self'}
        options = names | options
        others = [one.name for one in parameters if one.kind is inspect.Parameter.VAR_KEYWORD]
        if not others or others == ['unknown']:
            return options
        if not function.__module__.startswith('omh_mmseg'):
            return None
    return None if options else {}


def annotation_at(config: Mapping[str, Any], key: str) -> str:
    """What the option at a full key is annotated as; empty where that is not known."""
    *_, (part, name) = Part(config).holders(key)
    if name == 'loss_scale':
        return ''  # annotated as a text, and takes a number as well
    if not part.key:
        return _names(Runner).get(name, '')
    return (part.options or {}).get(name, '')


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """What stands at a full key; None where nothing does."""
    content = Part(config).at(key).content
    return None if content is ABSENT else content


def check_new(config: Mapping[str, Any], former: Mapping[str, Any], key: str) -> None:
    """Refuse a setting below the top level that reaches nothing.

    Args:
        config: Plain content with the setting.
        former: The content before.
        key: Full key of the setting.

    Raises:
        ValueError: The key is new, and its part does not take it; or it is new in a dict that may hold anything, and
            looks like a misspelt one. The message has close matches.
    """
    for (part, name), (before, _) in zip(Part(config).holders(key), Part(former).holders(key)):
        if not part.key or not isinstance(part.content, Mapping) or before.child(name).content is not ABSENT:
            continue
        known = set(part.options or ())
        if part.options is None:
            known = {*NAMED.get(part.key.rpartition('.')[2], ()), *map(str, part.content)} - {name}
            if name in NAMED.get(part.key.rpartition('.')[2], ()) or not _alike(name, known, 1, ALIKE):
                continue
        if part.options is None or name not in part.options:
            what = f'{part.key} ({getattr(part.kind, "__name__", "")})' if part.kind else part.key
            moved = getattr(part.kind, 'MOVED', {}).get(name)
            hint = f'; it is {moved} now' if moved else suggestion(former, f'{part.key}.{name}', known)
            raise ValueError(f'{what} has no {name}{hint}')


def check_plain(config: Mapping[str, Any]) -> None:
    """Refuse what mmengine would pass over in silence: names in ``env_cfg`` and the like, and wrong numbers.

    Raises:
        ValueError: There is such a name, with close matches; or a default hook without a type; or a number or switch
            of `OPTIONS` is of another type or out of range.
    """
    for key, option in OPTIONS.items():
        content = Part(config).at(key).content
        if content is not ABSENT:
            option.check(key, content)
    for key, options in PLAIN.items():
        part = Part(config).at(key)
        if not isinstance(part.content, Mapping):
            continue
        if key.endswith('paramwise_cfg') and config['optim_wrapper'].get('constructor') not in CONSTRUCTORS:
            continue
        for name in part.content:
            if name not in (part.options or options):
                raise ValueError(f'{key} has no {name}{suggestion(config, f"{key}.{name}", part.options or options)}')
    keys = value_at(config, 'optim_wrapper.paramwise_cfg.custom_keys') or {}
    for name, scales in keys.items():
        for scale in scales:
            if scale not in SCALES and _alike(scale, SCALES, 1, ALIKE):
                place = f'optim_wrapper.paramwise_cfg.custom_keys.{name}'
                raise ValueError(f'{place} has no {scale}{suggestion(config, f"{place}.{scale}", SCALES)}')
    hooks = config.get('default_hooks') or {}
    for name, hook in hooks.items():
        if isinstance(hook, Mapping) and 'type' not in hook:
            close = suggestion(config, f'default_hooks.{name}', [other for other in hooks if other != name])
            raise ValueError(f'default_hooks.{name} has no type{close}')


def suggestion(config: Mapping[str, Any], key: str, names: Iterable[str] = ()) -> str:
    """``'; did you mean ...?'`` with full keys; empty where none is alike.

    Args:
        config: Plain content.
        key: The full key that is none.
        names: What its part would take.
    """
    holder, _, last = key.rpartition('.')
    beside = {key, holder, f'{holder}.type'}
    keys = [one for one in full_keys(config) if one not in beside and not one.startswith(f'{key}.')]
    here = _alike(last, set(names) - {*NOTES, last}, 3, 0.6)
    alike = _alike(last, {one.rpartition('.')[2] for one in keys}, 2, ALIKE)
    start = f'{holder}.' if holder else ''
    near = (
        [f'{start}{name}' for name in _alike(last, here, 3, ALIKE)]
        or [one for one in keys if one.rpartition('.')[2] == last]
        or [f'{start}{name}' for name in here]
        or _alike(key, keys, 3, ALIKE)
        or [one for one in keys if one.rpartition('.')[2] in alike]
    )
    return f'; did you mean {" or ".join(list(dict.fromkeys(near))[:4])}?' if near else ''


def full_keys(content: Any, start: str = '') -> Iterator[str]:
    """Full keys of all that a config's plain content holds, in its order."""
    if isinstance(content, Mapping):
        items: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, (list, tuple)):
        items = ((number, one) for number, one in enumerate(content) if isinstance(one, Mapping))
    else:
        return
    for name, value in items:
        if not isinstance(content, (list, tuple)):
            yield f'{start}{name}'
        yield from full_keys(value, f'{start}{name}.')


def _alike(name: str, known: Iterable[str], count: int, cutoff: float) -> list[str]:
    return difflib.get_close_matches(name, sorted(known), n=count, cutoff=cutoff)
