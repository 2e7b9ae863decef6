"""What a sweep consists of: its runs, and what tables and pictures are made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omh_mmseg.structures.protocols import resolve

EACH_RUNS_REFERENCE = '*'
FIGURE_KEYS = {
    'curves': {'kind', 'file', 'curves', 'x_label', 'log_x', 'panels', 'references', 'title'},
    'effects': {'kind', 'file', 'metrics', 'reference', 'title'},
}


@dataclass(frozen=True)
class SweepRun:
    """One row of a sweep, to be repeated with every seed.

    Attributes:
        name: What tables and pictures call it.
        config: Config file.
        options: Settings of its own that replace those of the file and of its backbone.
        curve: Name of the entry of the schedule that it came from, and of the curve that it is a point of.
        x: Where on that curve: the value of the first setting that the entry varies.
        references: Names of the runs that it is compared with; those of the schedule if None.
        backbone: Config file of a block that takes the place of the config's backbone; empty to keep that.
        random: Whether that block's weights are random, drawn with the seed: the floor of a comparison.
        of: Name of another run, whose trained models this row shows; nothing is trained for it.
        refit: Show them after a closing refit of all clusterings.
        heads: Heads whose scores such a row shows, ``'probe'`` or ``'level1'``; all if empty.
    """

    name: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)
    curve: str = ''
    x: float | None = None
    references: tuple[str, ...] | None = None
    backbone: str = ''
    random: bool = False
    of: str = ''
    refit: bool = False
    heads: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as that of a folder."""
        return re.sub(r'[^A-Za-z0-9._=-]+', '_', self.name).strip('_')


@dataclass(frozen=True)
class Schedule:
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
        timed_images: Validation images whose prediction is timed, one at a time, after every training.
    """

    runs: tuple[SweepRun, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    title: str = ''
    options: dict[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    figures: tuple[dict[str, Any], ...] = ()
    timed_images: int = 0

    def __post_init__(self) -> None:
        names = [run.name for run in self.runs]
        slugs = [run.slug for run in self.runs]
        if not names:
            raise ValueError(
                'there are no runs; a schedule lists them in `runs`, the command line after --runs or --backbones'
            )
        if len(set(slugs)) < len(slugs) or not all(slugs):
            double = sorted({name for name, slug in zip(names, slugs) if slugs.count(slug) > 1 or not slug})
            raise ValueError(f'the names of the runs must differ, also as folder names; got {", ".join(double)}')
        trained = [run.name for run in self.trained]
        for run in self.runs:
            if run.of and run.of not in trained:
                raise ValueError(
                    f'run {run.name!r} shows {run.of!r}, which is no run that is trained; there are '
                    f'{", ".join(trained)}'
                )
        for name in self.all_references():
            if name not in names:
                raise ValueError(f'references has {name!r}, which is no run; the runs are {", ".join(names)}')
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f'there must be one or more seeds, each once; got {list(self.seeds)}')
        if self.timed_images < 0:
            raise ValueError(f'timed_images must be at least 0; got {self.timed_images}')
        for protocol in self.protocols:
            resolve(protocol)
        curves = {run.curve for run in self.runs}
        for figure in self.figures:
            _check_figure(figure, curves, names)

    @property
    def trained(self) -> list[SweepRun]:
        """The runs that are trained, which those that show another one are not."""
        return [run for run in self.runs if not run.of]

    def is_refitted(self, name: str) -> bool:
        """Whether a run shows the refit of this one."""
        return any(run.of == name and run.refit for run in self.runs)

    def references_of(self, name: str) -> tuple[str, ...]:
        """What a run is compared with: its own references or those of the schedule, without itself."""
        references = next((run.references for run in self.runs if run.name == name), None)
        return tuple(other for other in (self.references if references is None else references) if other != name)

    def all_references(self) -> list[str]:
        """Every run that another one is compared with."""
        return list(dict.fromkeys([*self.references, *(name for run in self.runs for name in run.references or ())]))


def check_keys(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise ValueError for keys that are not known, naming those that are."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f'{where} has {", ".join(unknown)}; known are {", ".join(known)}')


def _check_figure(figure: Mapping[str, Any], curves: set[str], names: Sequence[str]) -> None:
    kind = figure.get('kind')
    if kind not in FIGURE_KEYS:
        raise ValueError(f'a figure needs kind, one of {", ".join(FIGURE_KEYS)}; got {kind!r}')
    check_keys(f'figure {figure.get("file")!r}', figure, sorted(FIGURE_KEYS[kind]))
    if not str(figure.get('file', '')).endswith('.png'):
        raise ValueError(f'a figure needs file, a name that ends in .png; got {figure.get("file")!r}')
    named = [('curve', name, curves) for name in figure.get('curves', ())]
    references = [*figure.get('references', ()), *filter(None, [figure.get('reference')])]
    named += [('reference', name, set(names)) for name in references]
    for what, name, known in named:
        if name not in known and (what, name) != ('reference', EACH_RUNS_REFERENCE):
            raise ValueError(f'figure {figure["file"]!r} has the {what} {name!r}; there are {", ".join(sorted(known))}')
    required = 'panels' if kind == 'curves' else 'metrics'
    if not figure.get(required):
        raise ValueError(f'figure {figure["file"]!r} needs {required}')
