"""From a command line to a run: reads and checks, so that wrong input costs seconds, applies options, and builds."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from omh_mmseg.engine.hooks.checkpoint_check_hook import CheckpointCheckHook
from omh_mmseg.evaluation.protocols import apply_protocol
from omh_mmseg.launchers import present_launcher
from omh_mmseg.models.backbones.checkpoint import weights_file
from omh_mmseg.models.prediction.options import PredictionOptions
from omh_mmseg.registry import DATASETS
from omh_mmseg.shipped import command_line
from omh_mmseg.structures.protocols import Protocol, resolve
from omh_mmseg.utils.config import building, read_config, read_settings, replace_settings
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.downloads import is_address
from omh_mmseg.utils.work_dirs import LATEST, config_file

PROTOCOL_KEYS = ('model.test_cfg.', 'test_pipeline', 'test_dataloader.dataset.pipeline', 'test_evaluator')
"""Starts of the settings that a protocol makes."""


def load_config(
    path: str, work_dir: str | None = None, launcher: str = 'none', options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file and set its work directory.

    Args:
        path: The config file, or the work directory of a run.
        work_dir: Work directory from the command line. First that, then, of a config that a run left in its work
            directory, this one, wherever it was moved, then the config's own, then
            ``./work_dirs/<stem of the config file>``.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        options: Settings that replace those of the file.

    Raises:
        FileNotFoundError: No such config file; the message names similar ones beside it.
        PermissionError: The work directory cannot be written.
        ValueError: This process is one of several and ``launcher`` does not say so.
    """
    started_by = present_launcher()
    if launcher == 'none' != started_by:
        raise ValueError(
            f'this process is one of several that {started_by} has started, which would each make the same run; add '
            f'--launcher {started_by}, or start one process'
        )
    if 'launcher' in (options or {}):
        raise ValueError('--cfg-options launcher: it would reach nothing; the option --launcher says it')
    config = read_config(path, options)
    config.launcher = launcher
    if work_dir is not None:
        config.work_dir = work_dir
    elif Path(path).is_dir() or (Path(config_file(path)).parent / LATEST).is_file():
        config.work_dir = str(Path(config_file(path)).parent)
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('./work_dirs', Path(path).stem)
    check_work_dir(config.work_dir)
    return config


def check_work_dir(work_dir: str) -> None:
    """Create ``work_dir`` and prove that files can be written to it.

    Raises:
        PermissionError: They cannot; the message says why and names the option that chooses another directory.
    """
    try:
        os.makedirs(work_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise PermissionError(
            f'the work directory {work_dir} cannot be written ({error.strerror or error}); '
            'choose another with --work-dir'
        ) from error


def check_crf(config: Config) -> None:
    """Find a wrong or uninstalled CRF of ``model.test_cfg`` before anything is built.

    Raises:
        ImportError: Its back end is not installed; names the extra.
        ValueError: An unknown keyword or a number out of range.
    """
    PredictionOptions(crf=(config.model.get('test_cfg') or {}).get('crf')).build_crf()


def check_inputs(config: Config, *splits: str) -> None:
    """Find what is not there before anything is built and logged: folders of images, a training's backbone weights.

    Args:
        config: Of the run.
        splits: Those that it reads: ``'train'``, ``'val'``, ``'test'``.

    Raises:
        FileNotFoundError: One is absent.
    """
    for split in splits:
        for dataset in innermost_datasets((config.get(f'{split}_dataloader') or {}).get('dataset')).values():
            kind = dataset.get('type')
            check = getattr(DATASETS.get(kind) if isinstance(kind, str) else kind, 'check_root', None)
            if check is not None:
                check(str(dataset.get('data_root') or ''))
    weights = ((config.get('model') or {}).get('backbone') or {}).get('checkpoint')
    # A test reads them from its checkpoint, which may have come from another machine.
    if 'train' in splits and isinstance(weights, str) and not is_address(weights):
        weights_file(weights)


def use_mixed_precision(config: Config) -> None:
    """Turn the config's plain ``OptimWrapper`` into ``AmpOptimWrapper`` with dynamic loss scaling.

    Raises:
        ValueError: The config has another optimiser wrapper, which mixed precision cannot replace.
    """
    kind = config.optim_wrapper.get('type', 'OptimWrapper')
    if kind == 'AmpOptimWrapper':
        MMLogger.get_current_instance().warning('the config already trains with mixed precision; --amp changes nothing')
        return
    if kind != 'OptimWrapper':
        raise ValueError(f'--amp needs optim_wrapper.type OptimWrapper, but the config has {kind}')
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_protocol(
    config: Config, name: str, crf: bool = True, flip: bool = True, options: Mapping[str, Any] | None = None
) -> Protocol:
    """Test by a protocol of the literature; settings given on the command line win over it.

    Args:
        config: Changed in place; before `use_test_time_augmentation`.
        name: See `omh_mmseg.structures.protocols.resolve`.
        crf: False leaves the CRF out.
        flip: False leaves the flip averaging out.
        options: The overrides of the command line.

    Raises:
        ValueError: An unknown protocol, or a test pipeline that it cannot rewrite.
    """
    protocol = apply_protocol(config, resolve(name, crf, flip))
    given = read_settings(config, options or {})
    changed = {key: value for key, value in given.items() if key.startswith(PROTOCOL_KEYS)}
    replace_settings(config, given)
    if changed:
        # The scores are not those of the protocol any more, and must not look as if they were.
        config.protocol.update(name=f'{protocol.name}, changed', changed=changed)
    return protocol


def use_test_time_augmentation(config: Config) -> None:
    """Wrap the config's model in its ``tta_model`` and feed it through ``tta_pipeline``.

    Raises:
        ValueError: The config lacks one of them.
    """
    absent = [key for key in ('tta_model', 'tta_pipeline') if config.get(key) is None]
    if absent:
        raise ValueError(f'--tta needs {" and ".join(absent)} in the config')
    for dataset in innermost_datasets(config.test_dataloader.dataset).values():
        # For what looks at an image without the augmentation, such as `LabelFreeHook`.
        config.plain_pipeline = dataset['pipeline']
        dataset['pipeline'] = config.tta_pipeline
    config.tta_model.module = config.model
    config.model = config.tta_model


def draw_predictions(config: Config, show: bool = False, show_dir: str | None = None, wait_time: float = 2.0) -> None:
    """Have the config's visualisation hook draw.

    Args:
        config: Changed in place.
        show: Open a window per image.
        show_dir: Where to save pictures; they lie in ``vis_data/vis_image`` below it.
        wait_time: Seconds that a window stays open.

    Raises:
        ValueError: The config has no visualisation hook.
    """
    hook = config.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show and --show-dir need default_hooks.visualization, for example '
            "dict(type='SegVisualizationHook'), which this config lacks"
        )
    hook['draw'] = True
    if show:
        hook['show'] = True
        hook['wait_time'] = wait_time
    if show_dir:
        config.visualizer['save_dir'] = show_dir


def keep_predictions(config: Config, folder: str) -> None:
    """Have every evaluator of the config write its predictions to ``folder``."""
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    for evaluator in evaluators:
        evaluator['output_dir'] = folder
        evaluator['keep_results'] = True


def build_runner(config: Config, loop: str | None = None) -> Any:
    """The runner that the config names in ``runner_type``, by default mmengine's, with a `CheckpointCheckHook`.

    Args:
        config: Of the run.
        loop: ``'train'`` or ``'test'`` to build data set and loop now, and for training the optimiser; otherwise they
            are built when the run begins.

    Raises:
        ValueError: A part refuses an option, or does not take it.
    """
    with building():
        runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
        if not any(isinstance(hook, CheckpointCheckHook) for hook in runner.hooks):
            runner.register_hook(CheckpointCheckHook())
        if loop == 'train' and runner.train_loop is not None:
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        elif loop == 'test':
            runner.test_loop  # noqa: B018  the property builds it
    return runner


def tell_next(work_dir: str) -> None:
    """Log where a run that is done lies, and what can be done with it."""
    if is_main_process():
        where = shlex.quote(os.path.normpath(work_dir))
        MMLogger.get_current_instance().info(
            f'done; the run is in {where}. Masks: {command_line("predict.py")} {where} IMAGES; its levels beside the '
            f'images: {command_line("explore.py")} {where} IMAGES'
        )


def build_evaluator(config: Config, metainfo: Mapping[str, Any]) -> Evaluator:
    """The config's ``val_evaluator`` for a data set with this ``metainfo``."""
    evaluators = config.val_evaluator if isinstance(config.val_evaluator, list) else [config.val_evaluator]
    evaluator = Evaluator(evaluators)
    evaluator.dataset_meta = dict(metainfo)
    return evaluator


def last_checkpoint(work_dir: str) -> str | None:
    """Path of the newest checkpoint that a run wrote to ``work_dir``, or None."""
    note = Path(work_dir) / LATEST
    return note.read_text().strip() if note.is_file() else None


@contextmanager
def interruptible(work_dir: str) -> Iterator[None]:
    """On Ctrl-C, end with status 130 and log where the newest checkpoint is and how to go on from it."""
    try:
        yield
    except KeyboardInterrupt:
        if not is_main_process():
            raise SystemExit(130) from None
        checkpoint = last_checkpoint(work_dir)
        if checkpoint is None:
            state = f'{work_dir} has no checkpoint yet'
        else:
            state = f'the last checkpoint is {checkpoint}; run the same command with --resume to go on from it'
        MMLogger.get_current_instance().warning(f'interrupted: {state}')
        raise SystemExit(130) from None
