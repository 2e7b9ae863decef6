"""One host trained on several backbones: a run for each backbone and seed, one table, one picture."""

from __future__ import annotations

import ast
import difflib
import multiprocessing
import os
import re
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from omh_mmseg.engine import launch
from omh_mmseg.preparation.neighbours import prepare_neighbours
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.study.backbone_table import write_comparison
from omh_mmseg.study.process import ProcessRun, peak_memory, settings_key, told
from omh_mmseg.utils.config import find_pairs_config, read_config
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.devices import default_device
from omh_mmseg.utils.files import replaced_when_complete

RANDOM = 'random'
BLOCK_PARTS = ('backbone.', 'data_preprocessor.')
SIZED_STEPS = ('ResizeToCover', 'CentreCrop', 'ResizeShortSide')
WARM_UP = 2


@dataclass(frozen=True)
class Contender:
    """A backbone that takes part.

    Attributes:
        name: As it was asked for; what tables and pictures call it.
        block: Config file that defines ``backbone`` and ``data_preprocessor`` of ``model``.
        options: Settings that replace those of the block (``backbone.out_indices``, ``data_preprocessor.mean``) or, by
            any other key, those of the host's config.
        random: Whether the weights are random, drawn with the seed of the run: the floor.
    """

    name: str
    block: Path
    options: dict[str, Any] = field(default_factory=dict)
    random: bool = False

    @property
    def slug(self) -> str:
        """The name as that of a folder."""
        return re.sub(r'[^A-Za-z0-9._-]+', '_', self.name).strip('_')


def parse_contender(text: str, folder: Path) -> Contender:
    """Read ``[LABEL: ]BLOCK [random] [KEY=VALUE ...]``.

    Args:
        text: ``'last map: mobilenet-v2 backbone.out_indices=1'``; BLOCK is the name of a file in the folder or the path
            of one. Without a label, the text itself is the name.
        folder: Where the blocks are.

    Raises:
        FileNotFoundError: There is no such block; similar names are given.
        ValueError: A word is neither ``random`` nor an option.
    """
    label, colon, rest = text.partition(': ')
    block, *words = shlex.split(rest if colon else text) or ['']
    path = Path(block) if block.endswith('.py') else folder / f'{block}.py'
    if not path.is_file():
        names = sorted(file.stem for file in folder.glob('*.py'))
        close = difflib.get_close_matches(block, names, n=3, cutoff=0.4) or names
        raise FileNotFoundError(f'there is no backbone block {path}; {folder} has {", ".join(close)}')
    options = {}
    for word in words:
        key, equals, value = word.partition('=')
        if equals:
            options[key] = _parsed(value)
        elif word != RANDOM:
            raise ValueError(f"{text!r}: after the block come 'random' and KEY=VALUE; {word!r} is neither")
    return Contender(label.strip() if colon else ' '.join([block, *words]), path, options, RANDOM in words)


def contender_config(
    host: str, contender: Contender, seed: int, work_dir: str | os.PathLike[str], options: Mapping[str, Any]
) -> Config:
    """The host's config with the backbone in it, for one run.

    Args:
        host: Config file of a host, on any backbone.
        contender: The backbone to put in.
        seed: Of the run.
        work_dir: Folder of the whole comparison.
        options: Settings that replace those of the host's config, before those of the contender.
    """
    config = read_config(host, options)
    block = Config.fromfile(str(contender.block))
    for part, settings in block.model.items():
        config.model[part] = settings
    own = {f'model.{key}' if key.startswith(BLOCK_PARTS) else key: value for key, value in contender.options.items()}
    config.merge_from_dict(own)
    folder = Path(work_dir) / contender.slug
    config.work_dir = str(folder / f'seed{seed}')
    config.randomness = {**config.get('randomness', {}), 'seed': seed}
    if contender.random:
        frozen = config.model.backbone
        frozen.update(checkpoint=str(folder / f'seed{seed}' / 'random_weights.pth'), key_converter=None)
        frozen.backbone.pop('init_cfg', None)
        if 'pretrained' in frozen.backbone:
            frozen.backbone.pretrained = False
    if _has_pairs(config):
        part = f'seed{seed}/' if contender.random else ''
        find_pairs_config(config)['index'] = str(folder / f'{part}neighbours_{{fingerprint}}.npz')
    return config


def fit_sizes(config: Config, multiple: int) -> None:
    """Round the image sizes of all pipelines to the nearest multiples, so that nothing is padded; in place."""

    def fitted(size: Any) -> Any:
        if isinstance(size, int):
            return max(round(size / multiple), 1) * multiple
        return tuple(fitted(side) for side in size)

    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in innermost_datasets(config[loader].dataset).values():
            for step in dataset.get('pipeline', []):
                if str(step.get('type')) in SIZED_STEPS:
                    step['size'] = fitted(step['size'])
                    if step.get('divisor') is not None:
                        step['divisor'] = multiple


def prepare_contender(config: Config, contender: Contender, seed: int) -> None:
    """Draw random weights where they are asked for, and fit the image sizes to the backbone; see `contender_config`."""
    if contender.random:
        _random_weights(config.model.backbone, seed)
    fit_sizes(config, MODELS.build(config.model.backbone).size_multiple)


def compare_backbones(
    host: str,
    contenders: Sequence[Contender],
    seeds: Sequence[int],
    work_dir: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    timed_images: int = 20,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train and score every contender with every seed, each run in a process of its own.

    A finished run is kept as long as its settings stay the same, an interrupted one is continued from its last
    checkpoint, a failed one is tried again by the next call. ``runs.csv``, ``table.csv``, ``table.md`` and
    ``backbones.png`` in ``work_dir`` are renewed after every run.

    Args:
        host: Config file of a host.
        contenders: The backbones.
        seeds: Of the runs.
        work_dir: Folder of all runs.
        options: Settings that replace those of the host's config, for all contenders.
        timed_images: Images whose prediction is timed, one at a time.
        progress: Draw a progress bar on stderr.

    Returns:
        One dict per run: ``backbone``, ``seed``, ``random``, and either ``error`` or ``scores`` (percent),
        ``backbone_parameters``, ``trained_parameters``, ``milliseconds`` (per image), ``memory`` (MiB, peak),
        ``memory_of`` (``'GPU'`` or ``'process'``) and ``seconds`` (of the training).

    Raises:
        ValueError: Two contenders have one name.
    """
    slugs = [contender.slug for contender in contenders]
    if len(set(slugs)) < len(slugs):
        raise ValueError(f'the backbones must differ in their names, got {[item.name for item in contenders]}')
    jobs: list[dict[str, Any]] = [
        dict(host=host, contender=contender, seed=seed, work_dir=str(work_dir), options=dict(options or {}),
             timed_images=timed_images)
        for contender in contenders for seed in seeds
    ]  # fmt: skip
    runs: list[dict[str, Any]] = []
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task('runs', total=len(jobs))
        for job in jobs:
            bar.update(task, description=f'{job["contender"].name}, seed {job["seed"]}')
            runs.append(_carry_out(job))
            write_comparison(runs, work_dir)
            bar.advance(task)
    return runs


def train_and_measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one run in this process; see `compare_backbones` for what it returns."""
    contender = job['contender']
    config = _config(job)
    init_default_scope(config.get('default_scope', 'mmseg'))
    prepare_contender(config, contender, job['seed'])
    if _has_pairs(config):
        device = default_device()
        prepare_neighbours(config, force=True, if_missing=True, device=device, progress=False)
    config.resume = launch.last_checkpoint(config.work_dir) is not None
    runner = launch.build_runner(config)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    runner.train()
    seconds = time.monotonic() - start
    metric = runner.val_evaluator.metrics[0]
    if not metric.last_result:
        runner.val_loop.run()  # continued after its last step
    scores: dict[str, float] = {}
    for head, found in metric.last_result.items():
        scores |= {f'{head}/mIoU': float(found.mean_iou), f'{head}/aAcc': float(found.pixel_accuracy)}
    parameters = list(runner.model.named_parameters())
    memory_of, memory = peak_memory()
    return dict(
        scores=scores,
        backbone_parameters=sum(part.numel() for name, part in parameters if name.startswith('backbone.')),
        trained_parameters=sum(part.numel() for _, part in parameters if part.requires_grad),
        milliseconds=_milliseconds(runner.model, config, job['timed_images']),
        memory=memory,
        memory_of=memory_of,
        seconds=round(seconds, 1),
    )


def _config(job: Mapping[str, Any]) -> Config:
    return contender_config(job['host'], job['contender'], job['seed'], job['work_dir'], job['options'])


def _process_run(job: Mapping[str, Any]) -> ProcessRun:
    contender = job['contender']
    return ProcessRun(
        identity=dict(backbone=contender.name, seed=job['seed'], random=contender.random),
        folder=Path(job['work_dir']) / contender.slug / f'seed{job["seed"]}',
        key=settings_key(_config(job).to_dict()),
        work=train_and_measure,
        argument=dict(job),
        stale=('random_weights.pth',),
    )


def _carry_out(job: Mapping[str, Any]) -> dict[str, Any]:
    """The stored result of a job, else that of a process of its own, which its failure or memory cannot outlive."""
    try:
        run = _process_run(job)
    except Exception as error:  # a config that cannot be made is a row like any other failure
        contender = job['contender']
        return dict(backbone=contender.name, seed=job['seed'], random=contender.random, error=told(error))
    return run.finished() or _run(run)


def _run(run: ProcessRun) -> dict[str, Any]:
    process = run.start(multiprocessing.get_context('spawn'))
    try:
        process.join()
    except BaseException:
        process.terminate()
        process.join()
        raise
    return run.result(process)


def _random_weights(frozen: Any, seed: int) -> None:
    """Draw the weights of a block and keep them where its ``checkpoint`` says, unless they are there."""
    path = Path(frozen.checkpoint)
    if path.is_file():
        return
    torch.manual_seed(seed)
    wrapped = MODELS.build({**frozen, 'checkpoint': None}).backbone
    if hasattr(wrapped, 'init_weights'):
        wrapped.init_weights()
    with replaced_when_complete(path) as file:
        torch.save(wrapped.state_dict(), file)


@torch.no_grad()
def _milliseconds(model: Any, config: Config, count: int) -> float:
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


def _has_pairs(config: Config) -> bool:
    try:
        find_pairs_config(config)
    except ValueError:
        return False
    return True


def _parsed(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
