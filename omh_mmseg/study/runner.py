"""Many trainings with one table: each in a separate process, several at a time, continued after any interruption."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from omh_mmseg.study import job as job_module
from omh_mmseg.study.curves import draw_figures
from omh_mmseg.study.job import SweepJob, job_config, make_neighbours, pairs_settings, settings, train_and_score
from omh_mmseg.study.process import NOTE, ProcessRun, environment, error_line, locked, process_context, settings_key
from omh_mmseg.study.schedule import Schedule
from omh_mmseg.study.source_state import source_commit, source_key
from omh_mmseg.study.table import shown_row, write_tables
from omh_mmseg.utils.settings import Text, read_text

PREPARATION = '.preparation'
SETTINGS_LETTERS = 16
RunId = tuple[str, int]
"""Name and seed."""
_DEVICE = re.compile(r'cpu|cuda:(\d+)')


@dataclass(frozen=True)
class Resources:
    """What the runs of a sweep may use.

    Attributes:
        devices: ``'cpu'`` or ``'cuda:0'``, ...; runs are distributed over them in turn.
        jobs: Runs at a time; None for one per device.
        threads: Of torch in each run; None for those of ``OMP_NUM_THREADS`` or, without it, the processor's cores
            shared among the runs.
        reuse_imports: See `process_context`.
    """

    devices: tuple[str, ...] = ('cpu',)
    jobs: int | None = None
    threads: int | None = None
    reuse_imports: bool = True

    def __post_init__(self) -> None:
        for device in self.devices:
            match = _DEVICE.fullmatch(device)
            if match is None:
                raise ValueError(f"devices are 'cpu' or 'cuda:0', 'cuda:1', ...; got {device!r}")
            if match[1] and int(match[1]) >= (gpus := torch.cuda.device_count()):
                raise ValueError(f'there is no device {device}: torch sees {gpus} GPUs here')
        counts = [len(self.devices), *(count for count in (self.jobs, self.threads) if count is not None)]
        if min(counts) < 1:
            raise ValueError(f'devices, jobs and threads must be at least 1; got {self}')

    def slots(self) -> list[str]:
        """The device of each of the runs that go on at a time."""
        count = len(self.devices) if self.jobs is None else self.jobs
        return [self.devices[index % len(self.devices)] for index in range(count)]

    def threads_each(self) -> int:
        """Threads of a run."""
        if self.threads is not None:
            return self.threads
        asked = os.environ.get('OMP_NUM_THREADS', '')
        if asked.isdecimal() and int(asked):
            return int(asked)
        return max(1, (os.cpu_count() or 1) // len(self.slots()))


def default_devices() -> tuple[str, ...]:
    """The first GPU where there is one, else the CPU."""
    return ('cuda:0',) if torch.cuda.is_available() else ('cpu',)


def run_sweep(
    schedule: Schedule,
    work_dir: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    only: Sequence[str] = (),
    any_source: bool = False,
    train: bool = True,
    runs_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train and score every run of a schedule with every seed; needed neighbour indices are made first.

    A finished run is kept as long as its settings and the source that acts on it stay the same, an interrupted one is
    continued from its last checkpoint, a failed one is tried again by the next call. The process may end in any way at
    any time, and its runs end with it. ``runs.csv``, ``table.csv`` and ``table.md`` in ``work_dir`` are renewed after
    every run, complete or not at all, the schedule's figures at the end.

    Args:
        schedule: The runs.
        work_dir: Folder of everything; a run's own is ``<name>/seed<seed>`` in it.
        options: Settings of all runs, above those of the schedule and below those of a run.
        resources: Devices, runs at a time and threads.
        only: Shell patterns of the names of the runs to carry out; of others, finished ones are in the table. All if
            empty.
        any_source: Keep finished runs of other source, too.
        train: False makes table and figures of what is there and carries out nothing.
        runs_dir: Where to keep the runs by their settings, for several sweeps to share, also at a time; in ``work_dir``
            by their names if None.
        progress: Draw a progress bar on stderr.

    Returns:
        One dict per run that was carried out, kept or failed: ``name``, ``config``, ``overrides``, ``seed``,
        ``commit``, ``status`` (``'finished'`` or ``'failed'``), and either ``error`` or what `train_and_score` returns.

    Raises:
        BlockingIOError: Another sweep is at work in ``work_dir``.
        ValueError: ``only`` matches no run, or the config of a run to carry out cannot be made: a setting of it
            reaches nothing, say.
    """
    resources = resources or Resources(default_devices())
    names = [run.name for run in schedule.runs]
    chosen = {name for name in names if not only or any(fnmatch.fnmatchcase(name, item) for item in only)}
    chosen |= {run.of for run in schedule.runs if run.name in chosen and run.of}
    if not chosen:
        raise ValueError(f'no run is named like {list(only)}; the schedule has {", ".join(names)}')
    shared = None if runs_dir is None else Path(runs_dir)
    with locked(Path(work_dir), wait=False):
        sweep = _Sweep(schedule, Path(work_dir), shared, {**schedule.options, **(options or {})}, resources, any_source)
        sweep.write()
        if train:
            sweep.carry_out(chosen, progress)
        sweep.write(figures=True)
        return sweep.rows()


@dataclass
class _Sweep:
    """The state of a sweep: what is known of each run, by name and seed."""

    schedule: Schedule
    work_dir: Path
    shared: Path | None
    options: Mapping[str, Any]
    resources: Resources
    any_source: bool
    results: dict[RunId, dict[str, Any]] = field(default_factory=dict)
    pending: dict[RunId, ProcessRun] = field(default_factory=dict)
    identities: dict[RunId, dict[str, Any]] = field(default_factory=dict)
    pairs: dict[RunId, str] = field(default_factory=dict)
    unmade: dict[RunId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit, self.source = source_commit(), source_key()
        files: dict[str, Config] = {}
        threads, schedule = self.resources.threads_each(), self.schedule
        # Seeds are the outer loop, so that a sweep that is cut off has compared everything at least once.
        for seed in schedule.seeds:
            for run in schedule.trained:
                folder = str(self.work_dir / run.slug / f'seed{seed}')
                job = SweepJob(
                    run, seed, folder, self.options, schedule.protocols, threads, schedule.timed_images,
                    schedule.is_refitted(run.name),
                )  # fmt: skip
                self._look_up(job, files)

    def rows(self) -> list[dict[str, Any]]:
        """Of all runs that finished or failed, in the order of the schedule."""
        order = [(run, (run.of or run.name, seed)) for run in self.schedule.runs for seed in self.schedule.seeds]
        there = [(run, self.results[run_id]) for run, run_id in order if run_id in self.results]
        asked = (*self.schedule.protocols, *['refit'] * any(run.refit for run in self.schedule.runs))
        return [shown_row(row, run, asked) for run, row in there]

    def write(self, figures: bool = False) -> None:
        """Renew the files."""
        write_tables(self.rows(), self.schedule, self.work_dir)
        if figures:
            draw_figures(self.rows(), self.schedule, self.work_dir)

    def carry_out(self, names: set[str], progress: bool) -> None:
        """Make the indices, then the pending runs of these names.

        Raises:
            ValueError: The config of one of them cannot be made; none is started then.
        """
        unmade = {name: error for (name, _), error in self.unmade.items() if name in names}
        if unmade:
            listed = '\n  '.join(f'{name}: {error}' for name, error in unmade.items())
            raise ValueError(f'the config of {len(unmade)} of the runs cannot be made, so none is started:\n  {listed}')
        todo = {run_id: run for run_id, run in self.pending.items() if run_id[0] in names}
        if not todo:
            return
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, disable=not progress) as bar, self._processes() as start:
            task = bar.add_task('neighbour indices', total=len(todo))
            for run_id, error in self._prepare(todo, start).items():
                self._record(run_id, dict(todo.pop(run_id).identity) | dict(error=error))
                bar.advance(task)
            waiting = list(todo.items())
            free = self.resources.slots()
            running: dict[int, tuple[RunId, ProcessRun, str, BaseProcess]] = {}
            while waiting or running:
                while free:
                    busy = {run.folder for _, run, *_ in running.values()}
                    place = next((i for i, (_, run) in enumerate(waiting) if run.folder not in busy), None)
                    if place is None:
                        break
                    run_id, run = waiting.pop(place)
                    stored = run.finished()  # by a run of the same settings and another name
                    if stored is not None:
                        self._record(run_id, stored)
                        bar.advance(task)
                        continue
                    device = free.pop(0)
                    process = start(run, device)
                    running[process.sentinel] = (run_id, run, device, process)
                description = ', '.join(f'{name}, seed {seed}' for (name, seed), *_ in running.values())
                bar.update(task, description=description)
                for sentinel in wait(list(running)) if running else ():
                    run_id, run, device, process = running.pop(cast(int, sentinel))
                    process.join()
                    free.append(device)
                    self._record(run_id, run.result(process))
                    bar.advance(task)

    def _look_up(self, job: SweepJob, files: dict[str, Config]) -> None:
        run_id = (job.run.name, job.seed)
        identity = dict(
            name=job.run.name, seed=job.seed, config=job.run.config, curve=job.run.curve, x=job.run.x,
            overrides=json.dumps(_overrides(job), default=str),
            backbone=' '.join([job.run.backbone] + job.run.random * ['random']),
        )  # fmt: skip
        try:
            config = job_config(job, files)
            key = f'{settings_key(settings(config))} {self.source}'
            if self.shared is not None:
                job = replace(job, folder=str(self.shared / key[:SETTINGS_LETTERS]))
            pairs = pairs_settings(config)
        except Exception as error:  # where nothing is carried out, it is a row like any other failure
            self.unmade[run_id] = error_line(error)
            self._record(run_id, identity | dict(commit=self.commit, error=error_line(error)), write=False)
            return
        if self.any_source:
            key = _stored_key(Path(job.folder), key)
        known = identity | dict(folder=job.folder, commit=self.commit, threads=job.threads)
        run = ProcessRun(known, Path(job.folder), key, train_and_score, job, job.asked)
        self.identities[run_id] = identity
        stored = run.finished()
        if stored is None:
            self.pending[run_id] = run
        else:
            self._record(run_id, stored, write=False)
        if pairs is not None:
            self.pairs[run_id] = settings_key(pairs)

    def _record(self, run_id: RunId, row: dict[str, Any], write: bool = True) -> None:
        # What was made for another schedule, or an earlier version of this one, had other names.
        row = {**row, **self.identities.get(run_id, {})}
        self.results[run_id] = row | dict(status='failed' if row.get('error') else 'finished')
        if not write:
            return
        self.write()
        end = row.get('error') or f'finished, {row["seconds"]:g} s of training'
        MMLogger.get_current_instance().info(f'{run_id[0]}, seed {run_id[1]}: {end}')

    def _prepare(
        self, todo: Mapping[RunId, ProcessRun], start: Callable[[ProcessRun, str], BaseProcess]
    ) -> dict[RunId, str]:
        """Make the indices that the runs need, one after the other; what failed, by the runs that it stops."""
        failed: dict[RunId, str] = {}
        for key in dict.fromkeys(self.pairs[run_id] for run_id in todo if run_id in self.pairs):
            needing = [run_id for run_id in todo if self.pairs.get(run_id) == key]
            folder = self.work_dir / PREPARATION / key[:12]
            run = ProcessRun({}, folder, key, make_neighbours, todo[needing[0]].argument)
            stored = run.finished()
            if stored is not None and Path(stored['path']).is_file():
                continue
            process = start(run, self.resources.devices[0])
            process.join()
            error = run.result(process).get('error')
            if error:
                failed |= {run_id: f'neighbour index: {error}' for run_id in needing}
        return failed

    @contextmanager
    def _processes(self) -> Iterator[Callable[[ProcessRun, str], BaseProcess]]:
        """A function that starts runs on a device; all that still go on at the end are ended."""
        threads = str(self.resources.threads_each())
        started: list[BaseProcess] = []
        with environment(OMP_NUM_THREADS=threads):
            context = process_context(job_module.__name__, self.resources.reuse_imports)

        def start(run: ProcessRun, device: str) -> BaseProcess:
            with environment(OMP_NUM_THREADS=threads, **_visible(device)):
                process = run.start(context)
            started.append(process)
            return process

        try:
            yield start
        finally:
            for process in started:
                if process.is_alive():
                    process.terminate()
            for process in started:
                process.join()


def _overrides(job: SweepJob) -> dict[str, Any]:
    """Settings of a run as the tables show them."""
    given = {**job.options, **job.run.options}
    return {key: read_text(value) if isinstance(value, Text) else value for key, value in given.items()}


def _visible(device: str) -> dict[str, str]:
    """The environment in which a device is the only one."""
    if not torch.cuda.is_available():
        return {}
    if device == 'cpu':
        return dict(CUDA_VISIBLE_DEVICES='')
    index = int(device.partition(':')[2])
    outer = os.environ.get('CUDA_VISIBLE_DEVICES', '')
    return dict(CUDA_VISIBLE_DEVICES=outer.split(',')[index].strip() if outer else str(index))


def _stored_key(folder: Path, key: str) -> str:
    """The key of what is in a folder, if it has the same settings, whatever its source."""
    note = folder / NOTE
    stored = note.read_text() if note.is_file() else ''
    return stored if stored.partition(' ')[0] == key.partition(' ')[0] else key
