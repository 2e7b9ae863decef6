"""One run of a sweep: its config, its training, its scores and figures."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from omh_mmseg.apis.protocols import compare_protocols
from omh_mmseg.engine import launch
from omh_mmseg.preparation.neighbours import prepare_neighbours
from omh_mmseg.study.plan import SweepRun
from omh_mmseg.study.process import peak_memory
from omh_mmseg.utils.config import find_pairs_config, read_config, replace_settings
from omh_mmseg.utils.devices import default_device

LAST_STEPS = 10
"""Steps at the end of a training that its figures are means of, like those of a log line."""
OMH_OPTIONS = 'model.omh_head.'
NOT_FIGURES = ('train/lr', 'train/base_lr', 'train/time', 'train/data_time')


@dataclass(frozen=True)
class SweepJob:
    """A run with one seed.

    Attributes:
        run: Which.
        seed: Of its training.
        folder: Of the run.
        options: Settings of all runs.
        protocols: See `SweepPlan`.
        threads: Of torch in this process; None leaves them.
    """

    run: SweepRun
    seed: int
    folder: str
    options: Mapping[str, Any]
    protocols: tuple[str, ...] = ()
    threads: int | None = None


def job_config(job: SweepJob, files: dict[str, Config] | None = None) -> Config:
    """The config of a run.

    The run's own options win over those of all runs. Of the latter, settings of OMH's head are left out where the
    config has no such head, so that a host and its twin can share a command.

    Args:
        job: The run.
        files: Configs read so far by their path, renewed here; they take longer to read than to change.

    Raises:
        FileNotFoundError: No such config file.
    """
    files = {} if files is None else files
    path = job.run.config
    if path not in files:
        files[path] = read_config(path)
    config = deepcopy(files[path])
    shared = dict(job.options)
    if not (config.get('model') or {}).get('omh_head'):
        shared = {key: value for key, value in shared.items() if not key.startswith(OMH_OPTIONS)}
    for options in (shared, dict(job.run.options)):
        replace_settings(config, options)
    config.work_dir = job.folder
    config.randomness = {**config.get('randomness', {}), 'seed': job.seed}
    return config


def settings(config: Config) -> dict[str, Any]:
    """What a run's scores depend on, as plain data: not where it is kept."""
    return {key: value for key, value in config.to_dict().items() if key != 'work_dir'}


def pairs_settings(config: Config) -> dict[str, Any] | None:
    """What a run's neighbour index depends on, as plain data; None where it needs none."""
    try:
        pairs = dict(find_pairs_config(config))
    except ValueError:
        return None
    found = config.to_dict()
    return dict(
        dataset=Config(pairs).to_dict(), backbone=found['model'].get('backbone'),
        preprocessor=found['model'].get('data_preprocessor') or found.get('data_preprocessor'),
    )  # fmt: skip


def make_neighbours(job: SweepJob) -> dict[str, Any]:
    """Compute the neighbour index that a run needs, unless it is there: ``path`` and whether it was ``made``."""
    _settle(job)
    config = job_config(job)
    device = default_device()
    path, made = prepare_neighbours(config, if_missing=True, device=device, progress=False)
    return dict(path=str(path), made=made)


def train_and_score(job: SweepJob) -> dict[str, Any]:
    """Train in this process, going on from the folder's last checkpoint, and score.

    Returns:
        ``scores`` of the last validation in percent (``'probe/mIoU'``, ...; those of a protocol after its name and a
        colon) or empty without labels; ``figures``, the mean over the last `LAST_STEPS` steps of whatever the training
        reports (``'train/omh_sparsity_12'``, ``'train/loss'``, ...); ``seconds`` of the training in this process;
        ``ms_per_step``, the median; ``memory`` in MiB at its peak and ``memory_of`` ``'GPU'`` or ``'process'``.
    """
    _settle(job)
    config = job_config(job)
    init_default_scope(config.get('default_scope', 'mmseg'))
    checkpoint = launch.last_checkpoint(config.work_dir)
    config.resume = bool(checkpoint) and Path(str(checkpoint)).is_file()
    runner = launch.build_runner(config)
    latest = _LatestScores()
    runner.register_hook(latest)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    runner.train()
    seconds = time.monotonic() - start
    memory_of, memory = peak_memory()
    if latest.scores is None and runner.val_loop is not None:
        runner.val_loop.run()  # continued after its last step
    scores = dict(latest.scores or {})
    if job.protocols:
        for row in compare_protocols(runner.model, config, job.protocols):
            scores |= {f'{row["protocol"]["name"]}:{name}': value for name, value in row['scores'].items()}
    return dict(
        scores=scores,
        figures=_figures(runner),
        seconds=round(seconds, 1),
        ms_per_step=_milliseconds(runner),
        memory=memory,
        memory_of=memory_of,
    )


class _LatestScores(Hook):
    """Keeps what the last validation found."""

    scores: dict[str, float] | None = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        self.scores = {key: float(value) for key, value in (metrics or {}).items() if isinstance(value, (int, float))}


def _settle(job: SweepJob) -> None:
    if job.threads is not None:
        torch.set_num_threads(job.threads)


def _figures(runner: Runner) -> dict[str, float]:
    found = {}
    for name, buffer in runner.message_hub.log_scalars.items():
        if name.startswith('train/') and name not in NOT_FIGURES:
            value = float(buffer.mean(LAST_STEPS))
            if math.isfinite(value):
                found[name] = value
    return found


def _milliseconds(runner: Runner) -> float | None:
    times = runner.message_hub.log_scalars.get('train/time')
    if times is None or not len(times.data[0]):
        return None
    return round(1e3 * float(sorted(times.data[0])[len(times.data[0]) // 2]), 2)
