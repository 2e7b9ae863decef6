"""Refuses a checkpoint that does not fit its run, and lets weights of another run begin a new one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn
from torch.optim import Optimizer

from omh_mmseg.checkpoint_files import CheckpointError
from omh_mmseg.engine.models import model_of
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.models.utils.loaded_weights import RESUME, fill_model, not_finite, start
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.config import check_checkpoint
from omh_mmseg.utils.text import first_few
from omh_mmseg.utils.work_dirs import LATEST

SHAPED_LIKE_PARAMETERS = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer', 'square_avg', 'sum')
"""State that torch's optimisers keep of each element of a parameter."""


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Ends a run whose checkpoint does not fit, before anything is written, and begins new runs at their beginning.

    Weights must fill the model, see `fill_model`. A test may lack what nothing is predicted by; a training that
    ``load_from`` starts may lack OMH, the linear probe and what only training needs, each as a whole; a resumed
    training lacks nothing, and its optimiser must fit as well.

    A training that begins at step 0 forgets what belongs to the run that its weights come from, see
    `UnsupervisedSegmentor.begin_run`: with ``load_from`` its schedules, its pools and the start of OMH's centres begin
    again. ``resume`` goes on.

    Args:
        fresh_parts: Parts of the model, its direct children, that a training started by ``load_from`` does not read,
            e.g. ``['cluster_probe', 'linear_probe', 'omh_head']`` for another number of classes.
    """

    # After `ProvenanceHook` (HIGHEST, 0), which compares the backbone's own weights with those that fill the model
    # here; before every other hook looks into the checkpoint, or fills what is forgotten here.
    priority = 5

    def __init__(self, fresh_parts: Sequence[str] = ()) -> None:
        if isinstance(fresh_parts, str) or not all(isinstance(part, str) for part in fresh_parts):
            raise ValueError(f"fresh_parts must be a list of names, e.g. ['omh_head']; got {fresh_parts!r}.")
        self.fresh_parts = tuple(fresh_parts)

    def before_run(self, runner: Runner) -> None:
        """Look for the checkpoint that the run starts or goes on from.

        Raises:
            FileNotFoundError: There is no file ``load_from``.
            CheckpointError: The work directory notes one that is not there, or another folder's, or has checkpoints and
                no note.
        """
        if runner._load_from is not None:
            check_checkpoint(runner._load_from)
        elif runner._resume:
            check_latest(Path(runner.work_dir), checkpoint_folder(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Fill the model of a training, and compare the optimiser; models that predict fill themselves.

        Raises:
            CheckpointError: The weights do not fill the model, or a run that is resumed does not find its state.
        """
        model = model_of(runner)
        if not isinstance(runner._train_loop, BaseLoop) or not isinstance(model, UnsupervisedSegmentor):
            return
        purpose = RESUME if runner._resume else start(self.fresh_parts)
        frozen = [part for part in purpose.fresh if part != 'backbone' and _is_frozen(getattr(model, part, None))]
        if frozen:
            raise CheckpointError(
                f'{type(model).__name__} trains no {" and no ".join(frozen)}: begun anew, it would stay random. Take '
                'it out of default_hooks.checkpoint_check.fresh_parts.'
            )
        file = fill_model(model, checkpoint.get('state_dict', checkpoint), purpose)
        if runner._resume:
            check_resumable(checkpoint, runner.optim_wrapper.optimizer, file)
            done, end = checkpoint['meta']['iter'], runner._train_loop.max_iters
            if done >= end:
                runner.logger.warning(
                    f'{file} has {done} steps, and the run ends at {end}: nothing is left to train. A larger '
                    'train_cfg.max_iters makes it longer'
                )

    def before_train(self, runner: Runner) -> None:
        """Begin a new run."""
        model = model_of(runner)
        if runner.iter == 0 and isinstance(model, UnsupervisedSegmentor):
            model.begin_run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Refuse clusters that nothing has given a start, after all hooks that could.

        Raises:
            ValueError: There are such.
        """
        started = getattr(getattr(model_of(runner), 'cluster_probe', None), 'started', None)
        if started is not None and not bool(started):
            raise ValueError(
                "the prototypes are random: put dict(type='PrototypeStartHook') into custom_hooks, or name weights "
                'with prototypes or centres in load_from.'
            )


def _is_frozen(part: Any) -> bool:
    """Whether a part of a model has parameters, none of which learns."""
    parameters = list(part.parameters()) if isinstance(part, nn.Module) else []
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def checkpoint_folder(runner: Runner) -> Path:
    """Where the run's ``CheckpointHook`` writes."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.out_dir not in (None, runner.work_dir):
            return Path(hook.out_dir) / os.path.basename(str(runner.work_dir).rstrip(os.sep))
    return Path(runner.work_dir)


def check_latest(work_dir: Path, folder: Path) -> None:
    """Raise CheckpointError if the newest checkpoint of a work directory is not where it is noted.

    Args:
        work_dir: With the note.
        folder: With the checkpoints.
    """
    note = work_dir / LATEST
    there = sorted(folder.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    newest = f'go on from {there[-1]} with load_from={there[-1]} beside resume, or ' if there else ''
    remedy = f'{newest[:1].upper()}{newest[1:]}choose another work directory for a new run.'
    if not note.is_file():
        if there:
            raise CheckpointError(f'{work_dir} has checkpoints, but no file {LATEST} that names the newest. {remedy}')
        return
    noted = note.read_text(errors='replace').strip()
    if not noted:
        raise CheckpointError(f'{note} is empty, so that nothing says what to resume from. {remedy}')
    if '://' in noted:
        return
    if not Path(noted).is_file():
        raise CheckpointError(f'{note} names {noted}, which is not there. {remedy}')
    if Path(noted).resolve().parent != folder.resolve():
        raise CheckpointError(f'{note} names {noted}, which is of another run than {work_dir}. {remedy}')


def check_resumable(checkpoint: Mapping[str, Any], optimizer: Optimizer, file: str) -> None:
    """Raise CheckpointError if a checkpoint lacks what a resumed run goes on from, or is of another optimiser.

    Args:
        checkpoint: Content of the file.
        optimizer: Of the run that is resumed.
        file: For messages.
    """
    meta, state = checkpoint.get('meta', {}), checkpoint.get('optimizer', {})
    absent = [f'meta.{name}' for name in ('epoch', 'iter') if not _is_count(meta.get(name))]
    absent += ['meta.seed'] if meta.get('seed') is not None and not _is_count(meta['seed']) else []
    absent += [name for name in ('message_hub', 'optimizer') if not isinstance(checkpoint.get(name), dict)]
    absent += [
        f'message_hub.{name}'
        for name in ('log_scalars', 'runtime_info', 'resumed_keys')
        if 'message_hub' not in absent and not isinstance(checkpoint['message_hub'].get(name), dict)
    ]
    absent += [
        f'optimizer.{name}'
        for name, kind in (('param_groups', list), ('state', dict))
        if 'optimizer' not in absent and not isinstance(state.get(name), kind)
    ]
    if absent:
        raise CheckpointError(
            f'{file} cannot be resumed from: it lacks {", ".join(absent)}, as weights alone and best_*.pth do. Resume '
            'from a checkpoint iter_*.pth of the run; a new run starts from its weights with load_from alone.'
        )
    problem = optimizer_problem(state['param_groups'], state['state'], optimizer)
    if problem:
        raise CheckpointError(f'{file} cannot be resumed from: its optimiser {problem}. {RESUME.remedy}')


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_like(saved: Any, own: Any) -> bool:
    """Whether a setting of a saved optimiser is of the kind of the run's, and finite."""
    if isinstance(own, tuple):
        return isinstance(saved, (list, tuple)) and len(saved) == len(own) and all(map(_is_like, saved, own))
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        return isinstance(saved, (int, float)) and math.isfinite(saved)
    return True


def optimizer_problem(groups: list[Any], state: Mapping[Any, Any], optimizer: Optimizer) -> str | None:
    """Why the state of an optimiser does not fit another one; None if it does."""
    there = [len(group['params']) if isinstance(group, dict) and 'params' in group else -1 for group in groups]
    here = [len(group['params']) for group in optimizer.param_groups]
    if there != here:
        return f'has {len(there)} groups of {sum(there)} parameters, and that of the run {len(here)} of {sum(here)}'
    for saved, own in zip(groups, optimizer.param_groups):
        wrong = [f'{name}={saved[name]!r}' for name in own if name in saved and not _is_like(saved[name], own[name])]
        if wrong:
            return f'has {", ".join(wrong)}'
        numbers = {name for name, value in own.items() if isinstance(value, (float, tuple)) and name != 'initial_lr'}
        if numbers - saved.keys():
            return f'is of another kind than {type(optimizer).__name__}, which has {", ".join(sorted(numbers))}'
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    numbered = dict(zip([number for group in groups for number in group['params']], parameters))
    tensors: dict[str, Tensor] = {}
    for number, entries in state.items():
        if number not in numbered or not isinstance(entries, dict):
            return f'has state of {number!r}, which is no parameter'
        for name, value in entries.items():
            shape = tuple(numbered[number].shape)
            if not isinstance(value, Tensor):
                continue
            if name in SHAPED_LIKE_PARAMETERS and tuple(value.shape) != shape:
                return f'has {name} {tuple(value.shape)} of parameter {number}, which is {shape}'
            tensors[f'{name} of parameter {number}'] = value
    infinite = not_finite(tensors)
    return f'has {len(infinite)} tensors that are not finite: {first_few(infinite)}' if infinite else None
