"""Reading and checking of config files and of what is given beside them."""

from __future__ import annotations

import copy
import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from omh_mmseg.choices import SPLITS
from omh_mmseg.shipped import list_configs
from omh_mmseg.utils.checks import KNOWN
from omh_mmseg.utils.config_keys import ALIKE, annotation_at, check_new, check_plain, suggestion, value_at
from omh_mmseg.utils.dataset_configs import find_dataset, innermost_datasets
from omh_mmseg.utils.settings import Text, read_text
from omh_mmseg.utils.shared_options import (
    NOTE,
    SHARED_OPTIONS,
    apply_shared_options,
    check_shared_options,
    flat_settings,
    part_by_key,
    set_by_key,
    shared_parts,
)
from omh_mmseg.utils.work_dirs import config_file

_TOLD: set[str] = set()
"""Warnings of configs that this process has given: several parts of a run look at its config."""
OPTIONAL_KEYS = (
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'plain_pipeline', 'runner_type', 'sync_bn', 'test_pipeline', 'tta_model', 'tta_pipeline',
)  # fmt: skip
"""Top-level keys that mmengine and mmseg read beside the arguments of `Runner`."""
USUAL_VARIABLES = ('pipeline', '_dataloader')
"""Ends of names that many configs give to variables of their own."""


def read_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, or that of a work directory, and replace settings, without touching a work directory.

    Shared options such as ``data_root``, whether the file, its bases or ``options`` set them, reach every part.

    Raises:
        FileNotFoundError: No such config file; the message names similar ones beside it.
        ValueError: The file raises an error; or see `config_file`, `replace_settings` and `apply_shared_options`.
    """
    path = config_file(path)
    check_config(path)
    try:
        config = Config.fromfile(path)
    except (ImportError, OSError):
        raise
    except Exception as error:  # a config file is a program, which may raise anything
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        remedy = (
            '. Several of its bases are whole configs: name one of them in _base_, and set here what differs'
            if 'Duplicate key' in reason else ''
        )  # fmt: skip
        raise ValueError(f'the config file {path} cannot be read ({reason}){remedy}') from error
    config = apply_shared_options(config)
    check_plain(config.to_dict())
    replace_settings(config, options)
    for text in doubtful_variables(config):
        _TOLD.add(text)
        MMLogger.get_current_instance().warning(f'{path}: {text}')
    return config


def replace_settings(config: Config, options: Mapping[str, Any] | None) -> Config:
    """Replace settings of a config, those of several parts included; see `apply_shared_options`.

    Args:
        config: Changed in place.
        options: Values by dotted keys; the `Text` that ``--cfg-options`` gives is read by what stands there.

    Returns:
        ``config``.

    Raises:
        ValueError: A setting reaches nothing (names similar ones), is below a value that has no options, or is no
            number where one stands.
    """
    if options:
        former = config.to_dict()
        given = read_settings(config, options)
        for key, value in given.items():
            _check_place(former, key, value, given)
        # mmengine merges dicts into dicts alone, and dicts alone into lists.
        whole = [key for key, value in given.items() if isinstance(value, dict) and not _holds(former, key)]
        inside = [key for key in given if isinstance(value_at(former, key.rpartition('.')[0]), (list, tuple))]
        try:
            merged = {key: value for key, value in given.items() if key not in inside}
            config.merge_from_dict(copy.deepcopy(merged) | {key: None for key in whole if key not in inside})
            for key in whole:
                set_by_key(config, key, {name: one for name, one in given[key].items() if name != '_delete_'})
            for key in inside:
                if key not in whole:
                    _set_inside(config, key, given[key])
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(
                f'--cfg-options {" ".join(options)}: one of them is below a value that has no options, such as None '
                f'({str(error)[:60]})'
            ) from error
        for key in given:
            _check_top(config, former, key)
        content = config.to_dict()
        for key in flat_settings(given):
            try:
                check_new(content, former, key)
            except ValueError as error:
                raise ValueError(f'--cfg-options {key}: {error}') from error
        check_plain(content)
        if any(key.split('.')[0] == 'custom_imports' for key in given) and config.get('custom_imports'):
            try:
                import_modules_from_strings(**config.custom_imports)  # mmengine does so as it reads a file
            except (ImportError, TypeError) as error:
                raise ValueError(f'--cfg-options custom_imports: {error}') from error
        apply_shared_options(config, given, former)
    return config


def read_settings(config: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in which each `Text` is read by what the config has at its key; see `read_text`.

    Raises:
        ValueError: A text is no number where one stands.
    """
    content, given = config.to_dict(), dict(options)
    for key, value in options.items():
        if isinstance(value, Text):
            present = value_at(content, key)
            if present is None and key in SHARED_OPTIONS:
                present = next(iter(shared_parts(config, key).values()), None)
            annotation = annotation_at(content, key) if present is None or isinstance(present, str) else ''
            try:
                given[key] = read_text(value, present, annotation)
            except ValueError as error:
                raise ValueError(f'--cfg-options {key}: {error}') from error
    return given


@contextmanager
def building() -> Iterator[None]:
    """Let what the parts of a config raise where they are built, of whatever project they are, name the config.

    Raises:
        ValueError: One of the errors that constructors raise on values they cannot use.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        lacks = 'it lacks ' if isinstance(error, KeyError) and re.fullmatch(r'\w+', str(error.args[0])) else ''
        reason = str(error.args[0] if error.args else type(error).__name__).strip()
        unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '\w+'", reason)
        remedy = (
            f'. Where a setting is left of a part that {unknown[1]} replaces, replace that part whole: '
            f"PART=dict(_delete_=True, type='{unknown[1]}', ...)" if unknown else ''
        )  # fmt: skip
        raise ValueError(f'the config cannot be built: {lacks}{reason}{remedy}') from error


def check_settings(config: Config) -> None:
    """Refuse a config in which something does not reach what it names.

    For programs that do not read it by `read_config`, as mmseg's own tools; warns of what that would have warned of.

    Raises:
        ValueError: See `check_shared_options` and `check_plain`.
    """
    check_shared_options(config)
    check_plain(config.to_dict() if isinstance(config, Config) else config)
    for text in set(doubtful_variables(config)) - _TOLD:
        _TOLD.add(text)
        MMLogger.get_current_instance().warning(f'the config: {text}')


def check_config(path: str) -> None:
    """Raise FileNotFoundError, with similar names beside it or of shipped ones, if ``path`` is not a config file."""
    if Path(path).is_file():
        return
    folder = Path(path).parent
    names = sorted(file.name for file in folder.glob('*.py')) if folder.is_dir() else []
    close = difflib.get_close_matches(Path(path).name, names, n=3)
    hint = f'; did you mean {" or ".join(str(folder / name) for name in close)}?' if close else ''
    if not close:
        shipped = difflib.get_close_matches(Path(path).stem, list_configs(), n=3)
        hint = f'; shipped configs are named without a folder: {" or ".join(shipped)}' if shipped else ''
    raise FileNotFoundError(f'there is no config file {path} (looked from {Path.cwd()}){hint}')


def check_checkpoint(path: str) -> None:
    """Raise FileNotFoundError, naming what is there, if a local checkpoint does not exist; addresses pass."""
    if '://' in path or Path(path).is_file():
        return
    folder = Path(path).parent
    there = sorted(file.name for file in folder.glob('*.pth')) if folder.is_dir() else []
    hint = f'; {folder} holds {", ".join(there)}' if there else f'; {folder} holds no .pth file'
    raise FileNotFoundError(f'there is no checkpoint {path}{hint}')


def find_pairs_config(cfg: Config) -> dict:
    """The config of the ``NeighbourPairs`` data set inside ``train_dataloader``.

    Raises:
        ValueError: There is none, so that the config needs no index.
    """
    pairs = find_dataset(cfg.get('train_dataloader', {}).get('dataset'), 'NeighbourPairs')
    if pairs is None:
        raise ValueError(
            'train_dataloader has no data set of type NeighbourPairs: this config needs no neighbour index'
        )
    return pairs


def split_dataset(config: Config, split: str) -> dict[str, Any]:
    """Config of a split's labelled images as they are tested: without crops, pairs or training transforms.

    Raises:
        ValueError: Unknown split, or the config has none of this name.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}; got {split!r}')
    loader = config.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'the config has no {split}_dataloader')
    dataset, *_ = innermost_datasets(loader['dataset']).values()
    tested, *_ = innermost_datasets(config.test_dataloader['dataset']).values()
    return {**copy.deepcopy(dataset), 'pipeline': copy.deepcopy(tested['pipeline']), 'test_mode': True}


def known_keys() -> set[str]:
    """Top-level keys that mmengine and mmseg read."""
    return set(inspect.signature(Runner).parameters) - {'cfg'} | set(OPTIONAL_KEYS)


def doubtful_variables(config: Config) -> list[str]:
    """What of a config's top level reaches nothing, or not all, and may have been meant to; one sentence each."""
    found, known = [], known_keys() | set(SHARED_OPTIONS)
    for name in set(config) - known:
        alike = 0.9 if name.endswith(USUAL_VARIABLES) else ALIKE
        close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=alike)
        if close:
            found.append(f'{name} reaches nothing; did you mean {close[0]}?')
    tested = innermost_datasets((config.get('test_dataloader') or {}).get('dataset')).values()
    single = config.get('test_pipeline')
    shown = _without_scopes(single)
    if single is not None and any(_without_scopes(dataset.get('pipeline', single)) != shown for dataset in tested):
        found.append(
            'test_pipeline, which prepares single images, differs from test_dataloader.dataset.pipeline, which '
            'prepares those that are scored'
        )
    return found


def _without_scopes(value: Any) -> Any:
    """Without the notes that mmengine leaves in what comes from a config of another package."""
    if isinstance(value, Mapping):
        return {key: _without_scopes(one) for key, one in value.items() if key != '_scope_'}
    return [_without_scopes(one) for one in value] if isinstance(value, (list, tuple)) else value


def _check_place(former: Mapping[str, Any], key: str, value: Any, given: Mapping[str, Any]) -> None:
    """Refuse a key below what has no options or no such place, and a single value in place of a part."""
    names = key.split('.')
    for depth, name in enumerate(names[1:], 1):
        above = '.'.join(names[:depth])
        if above in given:
            return
        there = value_at(former, above)
        if isinstance(there, (list, tuple)) and not (name.isdigit() and int(name) < len(there)):
            raise ValueError(
                f'--cfg-options {key}: {above} is a list of {len(there)}, whose places are 0 to {len(there) - 1}; got '
                f'{name}'
            )
        if isinstance(there, (bool, int, float, str)):
            raise ValueError(f'--cfg-options {key}: {above} is {there!r}, which has no options')
    types = set(re.sub(r'\[[^\]]*\]', '', annotation_at(former, key)).replace(' ', '').split('|'))
    single = isinstance(value, (bool, int, float, str)) and not types & (KNOWN - {'None'})
    if single and value_at(former, key) and _holds(former, key):
        raise ValueError(f'--cfg-options {key}: {key} has options of its own, and takes no single value; got {value!r}')


def _set_inside(config: Config, key: str, value: Any) -> None:
    """Replace an element of a list, or merge a dict into it."""
    path, _, place = key.rpartition('.')
    holder = part_by_key(config, path)
    elements: Any = list(holder)
    if isinstance(value, dict) and isinstance(elements[int(place)], Mapping):
        part = Config(dict(part=elements[int(place)]))
        part.merge_from_dict(dict(part=copy.deepcopy(value)))
        value = part.part
    elements[int(place)] = copy.deepcopy(value)
    set_by_key(config, path, type(holder)(elements))


def _holds(content: Mapping[str, Any], key: str) -> bool:
    return isinstance(value_at(content, key), Mapping)


def _check_top(config: Config, former: Mapping[str, Any], key: str) -> None:
    name = key.split('.')[0]
    if name in known_keys() or (name in SHARED_OPTIONS and shared_parts(config, name)):
        return
    content = {other: value for other, value in former.items() if other not in (name, NOTE)}
    known = known_keys() | {*SHARED_OPTIONS} if key == name else ()
    what = f'the config has no {name}, so that it would reach nothing'
    if name in former:
        what = f'{name} is a variable of the config file, from which parts copied its value; it would reach nothing'
    raise ValueError(f'--cfg-options {key}: {what}{suggestion(content, key, known)}')
