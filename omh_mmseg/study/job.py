"""One run of a sweep: its config, its training, its scores and figures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from omh_mmseg.apis.protocols import compare_protocols
from omh_mmseg.apis.refit import score_refit
from omh_mmseg.engine import launch
from omh_mmseg.preparation.neighbours import prepare_neighbours
from omh_mmseg.registry import DATASETS
from omh_mmseg.study.backbones import name_random_weights, pairs_config, prepare_backbone, put_backbone
from omh_mmseg.study.process import peak_memory
from omh_mmseg.study.schedule import SweepRun
from omh_mmseg.utils.config import read_config, read_settings, replace_settings
from omh_mmseg.utils.devices import default_device

LAST_STEPS = 10
"""Steps at the end of a training that its figures are means of, like those of a log line."""
OMH_OPTIONS = 'model.omh_head.'
NOT_FIGURES = ('train/lr', 'train/base_lr', 'train/time', 'train/data_time')
WARM_UP = 2


@dataclass(frozen=True)
class SweepJob:
    """A run with one seed.

    Attributes:
        run: Which.
        seed: Of its training, and of random weights of its backbone.
        folder: Of the run.
        options: Settings of all runs.
        protocols: See `Schedule`.
        threads: Of torch in this process; None leaves them.
        timed_images: See `Schedule`.
        refit: Score the model after a closing refit of all clusterings, too.
    """

    run: SweepRun
    seed: int
    folder: str
    options: Mapping[str, Any]
    protocols: tuple[str, ...] = ()
    threads: int | None = None
    timed_images: int = 0
    refit: bool = False

    @property
    def asked(self) -> tuple[str, ...]:
        """What the result must hold beside the scores of the validation."""
        timed = [f'{self.timed_images} images timed'] * bool(self.timed_images)
        return (*(f'protocol {name}' for name in self.protocols), *timed, *['refit'] * self.refit)


def job_config(job: SweepJob, files: dict[str, Config] | None = None) -> Config:
    """The config of a run.

    The run's own options win over its backbone's block, and this over those of all runs. Of the latter, settings of
    OMH's head are left out where the config has no such head, so that a host and its twin can share a command.

    Args:
        job: The run.
        files: Configs read so far by their path, renewed here; they take longer to read than to change.

    Raises:
        FileNotFoundError: No such config file.
    """
    files = {} if files is None else files
    path, run = job.run.config, job.run
    if path not in files:
        files[path] = read_config(path)
    config = deepcopy(files[path])
    shared = dict(job.options)
    if not (config.get('model') or {}).get('omh_head'):
        shared = {key: value for key, value in shared.items() if not key.startswith(OMH_OPTIONS)}
    _merge(config, shared)
    if run.backbone:
        put_backbone(config, run.backbone, job.folder if run.random else None)
    _merge(config, run.options)
    if run.random:
        name_random_weights(config, job.seed, job.folder)
    config.work_dir = job.folder
    config.randomness = {**config.get('randomness', {}), 'seed': job.seed}
    return config


def ready_config(job: SweepJob) -> Config:
    """The config of a run that this process is about to carry out, with what its model needs first."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    config = job_config(job)
    init_default_scope(config.get('default_scope', 'mmseg'))
    if job.run.backbone:
        prepare_backbone(config, job.seed, job.run.random)
    return config


def settings(config: Config) -> dict[str, Any]:
    """What a run's scores depend on, as plain data: not where it is kept."""
    return {key: value for key, value in config.to_dict().items() if key != 'work_dir'}


def pairs_settings(config: Config) -> dict[str, Any] | None:
    """What a run's neighbour index depends on, as plain data; None where it needs none."""
    pairs = pairs_config(config)
    if pairs is None:
        return None
    plain = config.to_dict()
    return dict(
        dataset=Config(dict(pairs)).to_dict(), backbone=plain['model'].get('backbone'),
        preprocessor=plain['model'].get('data_preprocessor') or plain.get('data_preprocessor'),
    )  # fmt: skip


def make_neighbours(job: SweepJob) -> dict[str, Any]:
    """Compute the neighbour index that a run needs, unless it is there: ``path`` and whether it was ``made``."""
    path, made = prepare_neighbours(ready_config(job), if_missing=True, device=default_device(), progress=False)
    return dict(path=str(path), made=made)


def train_and_score(job: SweepJob) -> dict[str, Any]:
    """Train in this process, going on from the folder's last checkpoint, and score.

    Returns:
        ``scores`` of the last validation in percent (``'probe/mIoU'``, ...; those of a protocol after its name and a
        colon, those after a closing refit after ``refit:``) or empty without labels; ``figures``, the mean over the
        last `LAST_STEPS` steps of whatever the training reports (``'train/omh_sparsity_12'``, ``'train/loss'``, ...);
        ``seconds`` of the training in this process;
        ``ms_per_step``, the median; ``ms_per_image`` of the prediction, the median, if any is to be timed;
        ``backbone_parameters`` and ``trained_parameters``, their numbers; ``memory`` in MiB at its peak and
        ``memory_of`` ``'GPU'`` or ``'process'``.
    """
    config = ready_config(job)
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
    parameters = list(runner.model.named_parameters())
    if job.refit:
        scores |= score_refit(runner)
    return dict(
        scores=scores,
        figures=_figures(runner),
        seconds=round(seconds, 1),
        ms_per_step=_milliseconds_per_step(runner),
        ms_per_image=_milliseconds_per_image(runner.model, config, job.timed_images) if job.timed_images else None,
        backbone_parameters=sum(part.numel() for name, part in parameters if name.startswith('backbone.')),
        trained_parameters=sum(part.numel() for _, part in parameters if part.requires_grad),
        memory=memory,
        memory_of=memory_of,
    )


class _LatestScores(Hook):
    """Keeps the scores of the last validation."""

    scores: dict[str, float] | None = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        self.scores = {key: float(value) for key, value in (metrics or {}).items() if isinstance(value, (int, float))}


def _merge(config: Config, options: Mapping[str, Any]) -> None:
    """Replace settings; a dict with ``_delete_=True`` takes the place of all that is there, and of nothing as well."""
    if not options:
        return
    options = deepcopy(read_settings(config, options))  # mmengine takes `_delete_` out of them
    config.merge_from_dict({
        key: None for key, value in options.items() if isinstance(value, dict) and value.get('_delete_')
    })  # fmt: skip
    replace_settings(config, options)


def _figures(runner: Runner) -> dict[str, float]:
    names = [name for name in runner.message_hub.log_scalars if name.startswith('train/') and name not in NOT_FIGURES]
    means = {name: float(runner.message_hub.log_scalars[name].mean(LAST_STEPS)) for name in names}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def _milliseconds_per_step(runner: Runner) -> float | None:
    log = runner.message_hub.log_scalars
    times = log['train/time'].data[0].tolist() if 'train/time' in log else []
    return round(1e3 * statistics.median_high(times), 2) if times else None


@torch.no_grad()
def _milliseconds_per_image(model: Any, config: Config, count: int) -> float:
    """Median time of predicting one validation image, from the decoded image on the CPU to the label map."""
    dataset = DATASETS.build(config.val_dataloader.dataset)
    model.eval()
    times = []
    for index in range(min(count + WARM_UP, len(dataset))):
        batch = pseudo_collate([dataset[index]])
        start = time.perf_counter()
        (result,) = model.test_step(batch)
        result.pred_sem_seg.data.cpu()  # waits for the GPU
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times[WARM_UP:] or times), 2)
