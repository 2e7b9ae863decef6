"""Keeps the classes that a validation found for the clusters with the model and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint

from omh_mmseg.engine.checkpoints import write_again
from omh_mmseg.engine.models import find_model
from omh_mmseg.evaluation import UnsupervisedIoUMetric
from omh_mmseg.models.prediction import ClusterAssignment
from omh_mmseg.registry import HOOKS
from omh_mmseg.shipped import command_line


@HOOKS.register_module()
class AssignmentHook(Hook):
    """After a validation with labels, writes the matched classes into the model's `ClusterAssignment`.

    mmengine saves the checkpoint of an iteration before it validates, so the assignment is also put into that
    checkpoint's file, which is replaced as a whole; checkpoints of other iterations keep theirs. The hook further tells
    the metric how many clusters each field of the model has, for validations and tests. A model without a
    `ClusterAssignment` is left alone.
    """

    # Before the checkpoint hook, whose best checkpoint then has the assignment.
    priority = 'NORMAL'

    def before_val_epoch(self, runner: Runner) -> None:
        """Tell the metric the numbers of clusters."""
        _pass_on_sizes(runner, runner.val_loop.evaluator)

    def before_test_epoch(self, runner: Runner) -> None:
        """Tell the metric the numbers of clusters."""
        _pass_on_sizes(runner, runner.test_loop.evaluator)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Take over the assignment, if labels gave one."""
        assignment = find_assignment(runner.model)
        matched = {
            field: classes
            for metric in unsupervised_metrics(runner.val_loop.evaluator)
            for field, classes in metric.last_assignment.items()
        }
        if assignment is None or not matched:
            return
        kept = assignment.update(matched)
        if kept:
            runner.logger.info(f'the classes of the clusters of {", ".join(kept)} were set by hand and stay so')
        if is_main_process():
            _put_into_checkpoint(runner, assignment)


def unsupervised_metrics(evaluator: Evaluator) -> list[UnsupervisedIoUMetric]:
    """The evaluator's metrics that match clusters."""
    return [metric for metric in evaluator.metrics if isinstance(metric, UnsupervisedIoUMetric)]


def find_assignment(model: Any) -> ClusterAssignment | None:
    """The assignment of a model, also of one in a wrapper (distributed, test-time augmentation); None without one."""
    assignment = getattr(find_model(model, lambda one: hasattr(one, 'assignment')), 'assignment', None)
    return assignment if isinstance(assignment, ClusterAssignment) else None


def store_assignment(
    path: str | Path,
    assignment: ClusterAssignment,
    target: str | Path | None = None,
    dataset_meta: Mapping[str, Any] | None = None,
) -> None:
    """Put an assignment into a checkpoint file.

    Args:
        path: Checkpoint.
        assignment: Its fields replace those of the checkpoint.
        target: File to write; default: ``path``, replaced as a whole.
        dataset_meta: Names and colours of the classes, which replace those of the checkpoint.
    """
    checkpoint = _load_checkpoint(str(path), map_location='cpu', logger='silent')
    if dataset_meta is not None and 'state_dict' in checkpoint:
        checkpoint['meta'] = {**checkpoint.get('meta', {}), 'dataset_meta': dict(dataset_meta)}
    _write_checkpoint(checkpoint, assignment, path if target is None else target)


def _put_into_checkpoint(runner: Runner, assignment: ClusterAssignment) -> None:
    """Into the file that the checkpoint hook wrote for this very iteration, if it did."""
    noted = runner.message_hub.runtime_info.get('last_ckpt')
    if noted is None:
        return
    if not Path(noted).is_file():
        runner.logger.warning(
            f'{noted} is no local file, so the classes of the clusters are not in it; put them there with '
            f'{command_line("analysis_tools/fit_assignment.py")}'
        )
        return
    checkpoint = _load_checkpoint(noted, map_location='cpu', logger='silent')
    if checkpoint.get('meta', {}).get('iter') == runner.iter:
        _write_checkpoint(checkpoint, assignment, noted)


def _write_checkpoint(checkpoint: dict[str, Any], assignment: ClusterAssignment, target: str | Path) -> None:
    state = checkpoint.get('state_dict', checkpoint)
    for field, classes in assignment.state_dict().items():
        state[f'assignment.{field}'] = classes.cpu()
    write_again(checkpoint, target)


def _pass_on_sizes(runner: Runner, evaluator: Evaluator) -> None:
    assignment = find_assignment(runner.model)
    if assignment is not None:
        for metric in unsupervised_metrics(evaluator):
            metric.use_cluster_sizes(assignment.sizes)
