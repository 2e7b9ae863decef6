"""Where the time of the demo goes, stage by stage.

    python benchmarks/demo_stages.py                            # the demo as it is, two to three minutes
    python benchmarks/demo_stages.py --sources live cached      # beside the same without the feature cache
    python benchmarks/demo_stages.py --steps 30                 # trainings of 30 steps

Each source is a whole demo in a folder of its own. A stage's time is its own, without that of the stages inside it;
its processor time is that of this process, without the processes that load images and draw the scenes.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from common import REPOSITORY, Benchmark, Question, Rows, Samples, Verdict
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner, ValLoop

from omh_mmseg.apis import protocols
from omh_mmseg.datasets.scenes import store
from omh_mmseg.engine import launch
from omh_mmseg.engine.hooks import HierarchyHook, ScoreReportHook
from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.models.prediction.crf import DenseCRF
from omh_mmseg.study import demo

STAGES = {
    'scenes drawn': (store, '_draw_all'),
    'neighbour index': (demo, 'prepare_neighbours'),
    'runners built': (launch, 'build_runner'),
    'training': (Runner, 'train'),
    'feature cache filled and checked': (FeatureCache, 'complete'),
    'validation': (ValLoop, 'run'),
    'checkpoints': (CheckpointHook, '_save_checkpoint'),
    'tables and pictures of the scores': (ScoreReportHook, '_write'),
    'pictures of the hierarchy, by the run': (HierarchyHook, 'after_train'),
    'protocols': (protocols, '_score'),
    'levels counted': (demo, 'count_levels'),
    'pictures': (demo, '_draw'),
}
REST, CRF, ALL = 'the rest', 'dense CRF', 'all'
LIMIT = 120.0


class Clock:
    """Seconds of each stage, without those of the stages that begin inside it."""

    def __init__(self) -> None:
        self.own: dict[str, list[float]] = {}
        self._stage, self._since = REST, self._now()

    def enter(self, stage: str) -> str:
        """Begin a stage; returns the one that it interrupts."""
        now, before = self._now(), self._stage
        total = self.own.setdefault(before, [0.0, 0.0])
        for place, (end, start) in enumerate(zip(now, self._since)):
            total[place] += end - start
        self._stage, self._since = stage, now
        return before

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Everything inside belongs to a stage."""
        before = self.enter(name)
        try:
            yield
        finally:
            self.enter(before)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def timed(clock: Clock, stage: str, function: Callable) -> Callable:
    """The same function, whose time belongs to a stage."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with clock.stage(stage):
            return function(*args, **kwargs)

    return run


def timed_crf(clock: Clock) -> Callable:
    """`DenseCRF.refine`, whose time belongs to the CRF, but not that of who makes the jobs and takes the results."""
    refine = DenseCRF.refine

    def run(self: DenseCRF, jobs: Any) -> Iterator[Any]:
        for job in jobs:
            with clock.stage(CRF):
                (result,) = refine(self, [job])
            yield result

    return run


def run_demo(source: str, steps: int, folder: Path) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Seconds of each stage and the summary."""
    options: dict[str, Any] = {'train_cfg.max_iters': steps, 'train_cfg.val_interval': steps}
    if source == 'live':
        options[demo.CACHE] = None
    configs = [str(REPOSITORY / 'configs' / f'{name}.py') for name in ('stego_vit-t8_demo', 'omh_stego_vit-t8_demo')]
    before, clock = Path.cwd(), Clock()
    os.chdir(folder)
    try:
        with ExitStack() as patches:
            for stage, (owner, name) in STAGES.items():
                patches.enter_context(mock.patch.object(owner, name, timed(clock, stage, getattr(owner, name))))
            patches.enter_context(mock.patch.object(DenseCRF, 'refine', timed_crf(clock)))
            summary = demo.run_demo(*configs, folder / 'demo', options)
        clock.enter(REST)
    finally:
        os.chdir(before)
    return {stage: Samples([wall], [cpu]) for stage, (wall, cpu) in clock.own.items()}, summary


def demo_stages(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Each source in turn."""
    rows: Rows = []
    scores, seconds = [], {}
    for source in args.sources:
        with tempfile.TemporaryDirectory(dir=args.parent) as folder:
            stages, summary = run_demo(source, args.steps, Path(folder))
        whole = Samples([sum(one.wall[0] for one in stages.values())], [sum(one.cpu[0] for one in stages.values())])
        rows += [
            dict(source=source, steps=args.steps, stage=stage, **stages[stage].times())
            for stage in sorted(stages, key=lambda stage: -stages[stage].cpu_ms)
        ]
        rows.append(dict(source=source, steps=args.steps, stage=ALL, **whole.times()))
        scores.append([summary[run] for run in ('host', 'omh')])
        seconds[source] = whole.wall_ms / 1e3
    verdicts = []
    if 'cached' in seconds:
        verdicts.append(
            Verdict(
                f'the demo takes under {LIMIT:.0f} s without the install',
                f'{seconds["cached"]:.0f} s',
                seconds['cached'] < LIMIT,
            )
        )
    if len(scores) > 1:
        equal = all(one == scores[0] for one in scores)
        verdicts.append(Verdict('the cache changes no score of the demo', 'the same' if equal else 'others', equal))
    return rows, verdicts


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            demo_stages,
            'Stages of the demo',
            repeats=1,
            options=dict(sources=['cached'], steps=300, parent=None),
            quick=dict(steps=30),
            choices=dict(sources=['live', 'cached']),
        )
    },
)

if __name__ == '__main__':
    main()
