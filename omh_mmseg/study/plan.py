"""What a sweep consists of: its runs, read from a plan file or from the command line."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from omh_mmseg.evaluation.protocols import resolve
from omh_mmseg.utils.config import check_config

PLAN_KEYS = (
    'title', 'config', 'options', 'placeholders', 'seeds', 'references', 'protocols', 'columns', 'runs', 'figures',
)  # fmt: skip
RUN_KEYS = ('name', 'config', 'options', 'vary', 'references')
OWN_REFERENCE = '*'
LEVELS_ABOVE = 3
FIGURE_KEYS = {
    'curves': {'kind', 'file', 'curves', 'x_label', 'log_x', 'panels', 'references', 'title'},
    'effects': {'kind', 'file', 'metrics', 'reference', 'title'},
}
_PLACEHOLDER = re.compile(r'\{(\w+)\}')


@dataclass(frozen=True)
class SweepRun:
    """One row of a sweep, to be repeated with every seed.

    Attributes:
        name: What tables and pictures call it.
        config: Config file.
        options: Settings of its own that replace those of the file.
        curve: Name of the entry of the plan that it came from, and of the curve that it is a point of.
        x: Where on that curve: the value of the first setting that the entry varies.
        references: Names of the runs that it is compared with; those of the plan if None.
    """

    name: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)
    curve: str = ''
    x: float | None = None
    references: tuple[str, ...] | None = None

    @property
    def slug(self) -> str:
        """The name as that of a folder."""
        return re.sub(r'[^A-Za-z0-9._=-]+', '_', self.name).strip('_')


@dataclass(frozen=True)
class SweepPlan:
    """Runs, and what is made of them.

    Attributes:
        runs: With different names.
        seeds: Of every run.
        title: Of the table.
        options: Settings that replace those of all config files, before the runs' own.
        references: Names of the runs that the others are compared with, seed by seed.
        protocols: Names of evaluation protocols that every trained model is scored by, beside its validation.
        columns: Metrics of the table; all mIoU and aAcc if empty.
        figures: Pictures, see `omh_mmseg.study.curves`.
    """

    runs: tuple[SweepRun, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    title: str = ''
    options: dict[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    figures: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        names = [run.name for run in self.runs]
        slugs = [run.slug for run in self.runs]
        if not names:
            raise ValueError('there are no runs; a plan lists them in `runs`, the command line after --runs')
        if len(set(slugs)) < len(slugs) or not all(slugs):
            double = sorted({name for name, slug in zip(names, slugs) if slugs.count(slug) > 1 or not slug})
            raise ValueError(f'the names of the runs must differ, also as folder names; got {", ".join(double)}')
        for name in self.all_references():
            if name not in names:
                raise ValueError(f'references has {name!r}, which is no run; the runs are {", ".join(names)}')
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f'there must be one or more seeds, each once; got {list(self.seeds)}')
        for protocol in self.protocols:
            resolve(protocol)
        curves = {run.curve for run in self.runs}
        for figure in self.figures:
            _check_figure(figure, curves, names)

    def references_of(self, name: str) -> tuple[str, ...]:
        """What a run is compared with: its own references or those of the plan, without itself."""
        own = next((run.references for run in self.runs if run.name == name), None)
        return tuple(other for other in (self.references if own is None else own) if other != name)

    def all_references(self) -> list[str]:
        """Every run that another one is compared with."""
        return list(dict.fromkeys([*self.references, *(name for run in self.runs for name in run.references or ())]))


def read_plan(path: str, placeholders: Mapping[str, Any] | None = None) -> SweepPlan:
    """Read a plan file: Python, YAML or JSON as of a config file.

    It has ``runs``, a list of ``dict(name, config, options, vary, references)``, and the other fields of `SweepPlan`.
    ``config`` may be given once for all runs. ``vary`` maps settings to lists of values and makes one run of each
    combination. ``{word}`` in a config file's name, a title or an option is replaced by the value of the placeholder of
    that name. Variables that start with an underscore are the plan's own. Config files are looked for from the working
    directory, then from the plan's folder and the two above it.

    Args:
        path: The plan file.
        placeholders: Values that replace those of the plan's ``placeholders``.

    Raises:
        FileNotFoundError: There is no such plan; the message names similar ones.
        ValueError: An unknown key, placeholder or run; two runs of one name; no runs.
    """
    check_config(path)
    plan = {key: value for key, value in Config.fromfile(path).to_dict().items() if not key.startswith('_')}
    _check_keys(path, plan, PLAN_KEYS)
    words = dict(plan.get('placeholders') or {})
    unknown = sorted(set(placeholders or {}) - set(words))
    if unknown:
        raise ValueError(f'{path} has no placeholder {", ".join(unknown)}; it has {", ".join(words) or "none"}')
    plan.pop('placeholders', None)
    plan = _filled(plan, words | dict(placeholders or {}))
    runs: list[SweepRun] = []
    for entry in plan.get('runs') or []:
        if not isinstance(entry, dict):
            raise ValueError(f'{path}: each of runs is a dict with {", ".join(RUN_KEYS)}; got {entry!r}')
        _check_keys(f'{path}: run {entry.get("name")!r}', entry, RUN_KEYS)
        config = entry.get('config', plan.get('config'))
        if not entry.get('name') or not config:
            raise ValueError(f"{path}: a run needs a name and a config file, its own or the plan's; got {entry!r}")
        name, references = str(entry['name']), entry.get('references')
        own = None if references is None else tuple(references)
        one = SweepRun(name, _beside(str(config), path), dict(entry.get('options') or {}), name, references=own)
        runs += _varied(one, entry.get('vary') or {})
    return SweepPlan(
        tuple(runs),
        tuple(plan.get('seeds') or (0, 1, 2)),
        plan.get('title') or Path(path).stem,
        dict(plan.get('options') or {}),
        tuple(plan.get('references') or ()),
        tuple(plan.get('protocols') or ()),
        tuple(plan.get('columns') or ()),
        tuple(plan.get('figures') or ()),
    )


def parse_run(text: str) -> SweepRun:
    """Read ``[NAME: ]CONFIG [KEY=VALUE ...]``.

    Args:
        text: ``'no plan gradient: configs/x.py model.omh_head.plan_gradient=detach'``. Without a name, the file's stem
            and the settings are the name.

    Raises:
        ValueError: A word after the config file is no setting.
    """
    name, colon, rest = text.partition(': ')
    config, *words = shlex.split(rest if colon else text) or ['']
    options = {}
    for word in words:
        key, equals, value = word.partition('=')
        if not equals:
            raise ValueError(f'{text!r}: after the config file come settings KEY=VALUE; {word!r} is none')
        options[key] = parsed(value)
    title = name.strip() if colon else ' '.join([Path(config).stem, *words])
    return SweepRun(title, config, options, title)


def parse_placeholders(words: Sequence[str]) -> dict[str, str]:
    """Read ``['NAME=VALUE', ...]``.

    Raises:
        ValueError: A word has no ``=``.
    """
    pairs = [word.partition('=') for word in words]
    for name, equals, _ in pairs:
        if not equals:
            raise ValueError(f'--set takes NAME=VALUE; got {name!r}')
    return {name: value for name, _, value in pairs}


def parsed(value: str) -> Any:
    """A value of the command line as Python reads it, or else as text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _beside(config: str, plan: str) -> str:
    if Path(config).is_file():
        return config
    found = (folder / config for folder in list(Path(plan).resolve().parents)[:LEVELS_ABOVE])
    return next((str(path) for path in found if path.is_file()), config)


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


def _check_keys(where: str, found: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise ValueError(f'{where} has {", ".join(unknown)}; known are {", ".join(known)}')


def _check_figure(figure: Mapping[str, Any], curves: set[str], names: Sequence[str]) -> None:
    kind = figure.get('kind')
    if kind not in FIGURE_KEYS:
        raise ValueError(f'a figure needs kind, one of {", ".join(FIGURE_KEYS)}; got {kind!r}')
    _check_keys(f'figure {figure.get("file")!r}', figure, sorted(FIGURE_KEYS[kind]))
    if not str(figure.get('file', '')).endswith('.png'):
        raise ValueError(f'a figure needs file, a name that ends in .png; got {figure.get("file")!r}')
    wanted = [('curve', name, curves) for name in figure.get('curves', ())]
    references = [*figure.get('references', ()), *filter(None, [figure.get('reference')])]
    wanted += [('reference', name, set(names)) for name in references]
    for what, name, known in wanted:
        if name not in known and (what, name) != ('reference', OWN_REFERENCE):
            raise ValueError(f'figure {figure["file"]!r} has the {what} {name!r}; there are {", ".join(sorted(known))}')
    required = 'panels' if kind == 'curves' else 'metrics'
    if not figure.get(required):
        raise ValueError(f'figure {figure["file"]!r} needs {required}')
