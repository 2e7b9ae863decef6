"""Schedules from a file, and their runs from words of the command line."""

from __future__ import annotations

import difflib
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from omh_mmseg.shipped import BACKBONES, shipped_schedule
from omh_mmseg.study.schedule import Schedule, SweepRun, check_keys
from omh_mmseg.utils.config import check_config
from omh_mmseg.utils.settings import Text
from omh_mmseg.utils.work_dirs import config_file

BLOCKS = f'configs/{BACKBONES}'
RANDOM = 'random'
LIST_KEYS = ('seeds', 'references', 'protocols', 'columns', 'figures')
FILE_KEYS = (
    'title', 'config', 'options', 'placeholders', 'seeds', 'references', 'protocols', 'columns', 'runs', 'figures',
    'timed_images',
)  # fmt: skip
RUN_KEYS = ('name', 'config', 'backbone', 'options', 'vary', 'references')
SHOWN_KEYS = ('name', 'of', 'refit', 'heads', 'references')
LEVELS_ABOVE = 3
_BLOCK_PARTS = ('backbone.', 'data_preprocessor.')
_PLACEHOLDER = re.compile(r'\{(\w+)\}')


def read_schedule(path: str, placeholders: Mapping[str, Any] | None = None) -> Schedule:
    """Read a schedule file: Python, YAML or JSON as of a config file.

    It has ``runs``, a list of ``dict(name, config, backbone, options, vary, references)`` or, for a row that shows
    another run, ``dict(name, of, refit, heads, references)``, and the other fields of `Schedule`. ``config`` may be
    given once for all runs. ``backbone`` is ``BLOCK [random] [KEY=VALUE ...]``, see `parse_backbone`. ``vary`` maps
    settings to lists of values and makes one run of each combination. ``{word}`` in a config file's name, a title or an
    option is replaced by the value of the placeholder of that name. Variables that start with an underscore are the
    file's own. Files are looked for from the working directory, then from the schedule's folder and the two above it.

    Args:
        path: The schedule file, or the name of one that the library ships, such as ``'refit'``.
        placeholders: Values that replace those of the schedule's ``placeholders``.

    Raises:
        FileNotFoundError: There is no such schedule or backbone block; the message names similar ones.
        ValueError: An unknown key, placeholder or run; two runs of one name; no runs.
    """
    path = shipped_schedule(path) or path
    check_config(path)
    content = {key: value for key, value in Config.fromfile(path).to_dict().items() if not key.startswith('_')}
    check_keys(path, content, FILE_KEYS)
    words = dict(content.pop('placeholders', None) or {})
    unknown = sorted(set(placeholders or {}) - set(words))
    if unknown:
        raise ValueError(f'{path} has no placeholder {", ".join(unknown)}; it has {", ".join(words) or "none"}')
    content = _filled(content, words | dict(placeholders or {}))
    runs: list[SweepRun] = []
    for entry in content.get('runs') or []:
        if not isinstance(entry, dict):
            raise ValueError(f'{path}: each of runs is a dict with {", ".join(RUN_KEYS)}; got {entry!r}')
        check_keys(f'{path}: run {entry.get("name")!r}', entry, SHOWN_KEYS if 'of' in entry else RUN_KEYS)
        if 'of' in entry and entry.get('name'):
            runs.append(_shown(entry))
            continue
        config = entry.get('config', content.get('config'))
        if not entry.get('name') or not config:
            raise ValueError(f"{path}: a run needs a name and a config file, its own or the schedule's; got {entry!r}")
        runs += _varied(_run_of(entry, str(config), path), entry.get('vary') or {})
    given: dict[str, Any] = {key: tuple(content[key]) for key in LIST_KEYS if content.get(key)}
    given |= dict(title=content.get('title') or Path(path).stem, timed_images=int(content.get('timed_images') or 0))
    return Schedule(tuple(runs), options=dict(content.get('options') or {}), **given)


def parse_run(text: str) -> SweepRun:
    """Read ``[NAME: ]CONFIG [KEY=VALUE ...]``.

    Args:
        text: ``'soft plans: configs/x.py model.omh_head.plan.entropy_weight=0.2'``. Without a name, the file's stem
            and the settings are the name.

    Raises:
        ValueError: A word after the config file is no setting.
    """
    name, config, words = _split(text)
    for word in words:
        if '=' not in word:
            raise ValueError(f'{text!r}: after the config file come settings KEY=VALUE; {word!r} is none')
    title = name or ' '.join([Path(config).stem, *words])
    return SweepRun(title, config_file(config), _settings(words), title)


def parse_backbone(text: str, config: str, folder: str | Path) -> SweepRun:
    """Read ``[NAME: ]BLOCK [random] [KEY=VALUE ...]``: a host with another backbone.

    Args:
        text: ``'last map: mobilenet-v2 backbone.out_indices=1'``; BLOCK is the name of a file in the folder or the path
            of one. Settings are those of the block (``backbone.out_indices``, ``data_preprocessor.mean``) or, by any
            other key, of the config. Without a name, the text itself is the name.
        config: Config file of the host, on any backbone.
        folder: Where the blocks are.

    Raises:
        FileNotFoundError: There is no such block; similar names are given.
        ValueError: A word is neither ``random`` nor a setting.
    """
    name, block, words = _split(text)
    path = Path(block) if block.endswith('.py') else Path(folder) / f'{block}.py'
    if not path.is_file():
        names = sorted(file.stem for file in Path(folder).glob('*.py'))
        close = difflib.get_close_matches(block, names, n=3, cutoff=0.4) or names
        raise FileNotFoundError(f'there is no backbone block {path}; {folder} has {", ".join(close)}')
    for word in words:
        if '=' not in word and word != RANDOM:
            raise ValueError(f"{text!r}: after the block come 'random' and KEY=VALUE; {word!r} is neither")
    settings = _settings([word for word in words if word != RANDOM])
    options = {f'model.{key}' if key.startswith(_BLOCK_PARTS) else key: value for key, value in settings.items()}
    title = name or ' '.join([block, *words])
    return SweepRun(title, config, options, title, backbone=str(path), random=RANDOM in words)


def parse_placeholders(words: Sequence[str]) -> dict[str, str]:
    """Read ``['NAME=VALUE', ...]``.

    Raises:
        ValueError: A word has no ``=``.
    """
    for word in words:
        if '=' not in word:
            raise ValueError(f'--set takes NAME=VALUE; got {word!r}')
    return {name: value for name, _, value in (word.partition('=') for word in words)}


def _split(text: str) -> tuple[str, str, list[str]]:
    """Name, file and further words of ``[NAME: ]FILE [WORD ...]``."""
    name, colon, rest = text.partition(': ')
    file, *words = shlex.split(rest if colon else text) or ['']
    return name.strip() if colon else '', file, words


def _settings(words: Sequence[str]) -> dict[str, Any]:
    return {key: Text(value) for key, _, value in (word.partition('=') for word in words)}


def _shown(entry: Mapping[str, Any]) -> SweepRun:
    references = None if entry.get('references') is None else tuple(entry['references'])
    heads = tuple(entry.get('heads') or ())
    name, of, refit = str(entry['name']), str(entry['of']), bool(entry.get('refit'))
    return SweepRun(name, '', references=references, of=of, refit=refit, heads=heads)


def _run_of(entry: Mapping[str, Any], config: str, path: str) -> SweepRun:
    name, config = str(entry['name']), config_file(_beside(config, path))
    run = SweepRun(name, config)
    if entry.get('backbone'):
        run = parse_backbone(str(entry['backbone']), config, _beside(BLOCKS, path))
    references = None if entry.get('references') is None else tuple(entry['references'])
    options = run.options | dict(entry.get('options') or {})
    return replace(run, name=name, curve=name, options=options, references=references)


def _beside(file: str, schedule: str) -> str:
    if Path(file).exists():
        return file
    candidates = (folder / file for folder in list(Path(schedule).resolve().parents)[:LEVELS_ABOVE])
    return next((str(path) for path in candidates if path.exists()), file)


def _varied(run: SweepRun, vary: Mapping[str, Sequence[Any]]) -> Iterator[SweepRun]:
    if not vary:
        yield run
        return
    for key, values in vary.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f'run {run.name!r}: vary maps a setting to a list of values; {key} has {values!r}')
    for values in itertools.product(*vary.values()):
        first = values[0]
        number = float(first) if isinstance(first, (int, float)) and not isinstance(first, bool) else None
        name = ' '.join([run.name, *(str(value) for value in values)])
        yield replace(run, name=name, options=run.options | dict(zip(vary, values)), x=number)


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, words) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(inner, words) for inner in value]
    if not isinstance(value, str):
        return value
    # A neighbour index has {fingerprint} in its name, which is not ours to fill in.
    return _PLACEHOLDER.sub(lambda match: str(words.get(match[1], match[0])), value)
