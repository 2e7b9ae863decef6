"""Options that several parts of a config hold, such as ``data_root``: one setting at the top level reaches them all.

mmengine copies a config's variables into its parts when it reads the file that defines them, so that a child config or
an override which sets the variable afterwards changes nothing. Our data set files note in ``_copied`` what their parts
took over: a variable that differs from the note was set later, and the parts that still hold the noted value are out of
date. A part with any other value got it by its full key, which wins.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from omh_mmseg.utils.dataset_configs import innermost_datasets

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
LISTS = dict(train_list=('train_dataloader',), val_list=('val_dataloader', 'test_dataloader'))
LABELS = ('seg_map_suffix', 'label_map', 'label_colours', 'reduce_zero_label', 'label_orientation')
READING = ('value_range', 'bands', 'max_pixels')
"""Options of the step that reads images, `LoadImage`, and of what reads them for the visualisation."""
SHARED_OPTIONS = ('data_root', 'num_classes', 'layout', 'level', *LISTS, *LABELS, *READING)
PIPELINE = 'test_pipeline'
NOTE = '_copied'
"""Key of the note in a config."""


def apply_shared_options(
    config: Config, options: Mapping[str, Any] | None = None, former: Mapping[str, Any] | None = None
) -> Config:
    """Bring every part of a config up to date with the shared options at its top level.

    ``data_root``, ``layout``, ``level`` and `LABELS` belong to every data set that has them, ``num_classes`` to the
    model, too; ``train_list`` is the ``ann_file`` of the training, ``val_list`` that of the scores; `READING` belong to
    whatever reads images. ``test_pipeline`` is the pipeline of the validation and the test, and ``tta_pipeline`` has
    its steps: where these have the steps that it had, they follow it.

    Args:
        config: After ``merge_from_dict(options)``; changed in place.
        options: The overrides of the command line. A shared option among them reaches all its parts but those whose
            full keys are among them, too.
        former: The plain content before them.

    Returns:
        ``config``.

    Raises:
        ValueError: A shared option reaches nothing.
    """
    for parts in outdated_parts(config, options, former).values():
        for key, value in parts.items():
            set_by_key(config, key, value)
    note = config.get(NOTE) or {}
    note.update({name: copy.deepcopy(config[name]) for name in note if name in config})
    return config


def check_shared_options(config: Config) -> None:
    """Refuse a config whose parts are out of date.

    For programs that do not call `apply_shared_options`, as mmseg's own tools.

    Raises:
        ValueError: They are; the message has the full keys. Or a shared option reaches nothing.
    """
    outdated = outdated_parts(config)
    if outdated:
        keys = ' '.join(f'{key}={value}' for parts in outdated.values() for key, value in parts.items())
        raise ValueError(
            f'{" and ".join(outdated)} at the top level of the config cannot reach all parts here, as mmengine copied '
            f"former values into them. Use this project's tools, which bring the parts up to date, or give their full "
            f'keys as well, after --cfg-options or in the config: {keys}'
        )


def outdated_parts(
    config: Config, options: Mapping[str, Any] | None = None, former: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """For each shared option the full keys of the parts that it has not reached, with the value that they should have.

    Args:
        config: With or without a note of what was copied; without it, only ``options`` are known to be later.
        options: See `apply_shared_options`.
        former: Likewise.

    Raises:
        ValueError: A shared option reaches nothing: all parts that hold it are set by their full keys, or none does.
    """
    given, copied = flat_settings(options or {}), config.get(NOTE) or {}
    outdated = {}
    for name in SHARED_OPTIONS:
        if name not in config or (name not in given and config[name] == copied.get(name, config[name])):
            continue
        value, parts = config[name], shared_parts(config, name)
        late = [
            key
            for key, current in parts.items()
            if key not in given and current != value and (name in given or current == copied[name])
        ]
        if not late and value not in parts.values():
            others = ', '.join(f'{key}={current!r}' for key, current in parts.items())
            raise ValueError(f'{name}={value!r} reaches nothing: {others or "no part of this config has it"}')
        if late:
            outdated[name] = dict.fromkeys(late, value)
    late_steps = _outdated_steps(config, (former or {}).get(PIPELINE) or copied.get(PIPELINE))
    late_steps = {key: value for key, value in late_steps.items() if key not in given}
    return outdated | ({PIPELINE: late_steps} if late_steps else {})


def shared_parts(config: Config, name: str) -> dict[str, Any]:
    """Full keys of the parts that hold a shared option, with their values."""
    if name in READING:
        return {f'{key}.{name}': reader[name] for key, reader in _readers(config) if name in reader}
    field = 'ann_file' if name in LISTS else name
    parts = {}
    for loader in LISTS.get(name, LOADERS):
        for key, dataset in innermost_datasets((config.get(loader) or {}).get('dataset'), f'{loader}.dataset').items():
            if field in dataset:
                parts[f'{key}.{field}'] = dataset[field]
    if name == 'num_classes':
        key, model = 'model', config.get('model') or {}
        while 'module' in model:  # test-time augmentation
            key, model = f'{key}.module', model['module']
        if name in model:
            parts[f'{key}.{name}'] = model[name]
    return parts


def _readers(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """What reads images, with its full key."""
    pipelines = {name: config.get(name) for name in ('test_pipeline', 'tta_pipeline')}
    for loader in LOADERS:
        for key, dataset in innermost_datasets((config.get(loader) or {}).get('dataset'), f'{loader}.dataset').items():
            pipelines[f'{key}.pipeline'] = dataset.get('pipeline')
    for key, pipeline in pipelines.items():
        for index, step in enumerate(pipeline or []):
            yield f'{key}.{index}', step
    hook = (config.get('default_hooks') or {}).get('visualization') or {}
    if hook.get('backend_args'):
        yield 'default_hooks.visualization.backend_args', hook['backend_args']


def set_by_key(config: Config, key: str, value: Any) -> None:
    """Replace a value by its full key; mmengine's merging takes no mapping with numbers as keys."""
    holder, _, name = key.rpartition('.')
    part_by_key(config, holder)[name] = copy.deepcopy(value)


def part_by_key(config: Config, key: str) -> Any:
    """What stands at a full key; the config itself at an empty one."""
    part: Any = config
    for step in key.split('.') if key else ():
        part = part[int(step) if step.isdigit() else step]
    return part


def flat_settings(options: Mapping[str, Any], key: str = '') -> dict[str, Any]:
    """Options with a dotted key for each value, whether they were given so or as dicts in dicts."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        inner = isinstance(value, dict) and value and all(isinstance(one, str) for one in value)
        flat |= flat_settings(value, f'{key}{name}.') if inner else {f'{key}{name}': value}
    return flat


def _outdated_steps(config: Config, was: Any) -> dict[str, Any]:
    """Full keys of the options in other pipelines that are still those of the former test pipeline, with new values."""
    now = config.get(PIPELINE)
    if not was or not now or now == was:
        return {}
    pipelines = {'tta_pipeline': config.get('tta_pipeline') or []}
    for loader in LISTS['val_list']:
        parts = innermost_datasets((config.get(loader) or {}).get('dataset'), f'{loader}.dataset')
        pipelines |= {f'{key}.pipeline': part.get('pipeline') or [] for key, part in parts.items()}
    if [step.get('type') for step in now] != [step.get('type') for step in was]:
        return {key: now for key, steps in pipelines.items() if steps == was}
    return {
        f'{key}.{number}.{option}': value
        for key, steps in pipelines.items()
        for number, (step, old, new) in enumerate(zip(steps, was, now))
        if step.get('type') == old['type']
        for option, value in new.items()
        if value != old.get(option) and step.get(option) == old.get(option)
    }
