"""Writes the tables behind the scores, and warns where the best checkpoint is chosen by labels."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import Runner

from omh_mmseg.engine.hooks.assignment_hook import find_assignment, unsupervised_metrics
from omh_mmseg.engine.models import model_of
from omh_mmseg.evaluation.score_table import write_class_csv, write_confusion_csv
from omh_mmseg.registry import HOOKS
from omh_mmseg.structures.assignment import write_assignment
from omh_mmseg.utils.checks import ranges
from omh_mmseg.utils.text import did_you_mean
from omh_mmseg.visualization import draw_confusion_matrix


@HOOKS.register_module()
class ScoreReportHook(Hook):
    """Writes tables and confusion matrices of the latest validation and of a test below the run's log folder.

    ``<work_dir>/<time>/scores/val`` (or ``test``) gets, for each head, ``<name>_classes.csv``, ``<name>_confusion.csv``
    and ``<name>_confusion.png``, and ``assignment.json``, which the metric's option ``assignment`` reads. Before a
    training, the log says if its best checkpoint is chosen by labels.

    Args:
        pictures: Draw the confusion matrices.
        out_dir: Folder instead of ``<work_dir>/<time>/scores``.
    """

    priority = 'LOW'

    @ranges()
    def __init__(self, pictures: bool = True, out_dir: str | None = None) -> None:
        self.pictures = pictures
        self.out_dir = out_dir

    def before_train(self, runner: Runner) -> None:
        """Warn of a selection by labels.

        Raises:
            ValueError: It, or an early stopping, is by a score that no validation gives.
        """
        names = _score_names(runner)
        if names is not None:
            _check_watched(runner, names)
        for hook in runner.hooks:
            chosen = getattr(hook, 'save_best', None) if isinstance(hook, CheckpointHook) else None
            if chosen is not None:
                listed = chosen if isinstance(chosen, str) else ', '.join(chosen)
                runner.logger.warning(
                    f'the best checkpoint is chosen by {listed} on the validation split, that is with its labels: say '
                    'so with its scores, and do not report them as unsupervised ones of the same split. The last '
                    'checkpoint is chosen without labels.'
                )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the report of a validation over that of the one before.

        Raises:
            ValueError: The best checkpoint or an early stopping is by a score that it did not give.
        """
        _check_watched(runner, list(metrics or {}))
        self._write(runner, runner.val_loop.evaluator, 'val', iteration=runner.iter)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the report of a test."""
        # `runner.iter` would build the training loop and its data set here.
        self._write(runner, runner.test_loop.evaluator, 'test')

    @master_only
    def _write(self, runner: Runner, evaluator: Evaluator, split: str, **notes: int) -> None:
        folder = Path(self.out_dir or Path(runner.log_dir) / 'scores') / split
        written = False
        for metric in unsupervised_metrics(evaluator):
            classes = (metric.dataset_meta or {}).get('classes', ())
            for name, scores in metric.last_result.items():
                write_class_csv(folder / f'{name}_classes.csv', scores, classes)
                write_confusion_csv(folder / f'{name}_confusion.csv', scores, classes)
                if self.pictures:
                    title = f'{name}: mIoU {scores.mean_iou:.1f}, aAcc {scores.pixel_accuracy:.1f}'
                    picture = folder / f'{name}_confusion.png'
                    draw_confusion_matrix(picture, scores.counts, scores.assignment, classes, title)
                written = True
            if metric.last_assignment:
                path = folder / 'assignment.json'
                write_assignment(path, metric.last_assignment, classes=list(classes), split=split, **notes)
        if written:
            runner.logger.info(f'tables and confusion matrices are in {folder}')


def _score_names(runner: Runner) -> list[str] | None:
    """Scores that a validation with labels will give; none without one, None where they are not known."""
    if runner.val_loop is None:
        return []
    metrics, assignment = unsupervised_metrics(runner.val_loop.evaluator), find_assignment(runner.model)
    if assignment is None or len(metrics) != len(runner.val_loop.evaluator.metrics):
        return None
    model = model_of(runner)
    absent = [] if getattr(model, 'linear_probe', None) is not None else ['pred_linear']
    absent += [field for metric in metrics for field in metric.heads if field.startswith('pred_level')
               and field not in assignment.sizes]  # fmt: skip
    return [name for metric in metrics for name in metric.score_names(absent)]


def _check_watched(runner: Runner, names: list[str]) -> None:
    """Raise ValueError if a hook waits for a score that is not among these."""
    for hook in runner.hooks:
        option, watched = '', None
        if isinstance(hook, CheckpointHook):
            option, watched = 'save_best', getattr(hook, 'save_best', None)
        elif isinstance(hook, EarlyStoppingHook):
            option, watched = 'monitor', hook.monitor
        for name in [watched] if isinstance(watched, str) else watched or []:
            if name not in names and (name != 'auto' or not names):
                given = f'a validation of this run gives {", ".join(names)}' if names else (
                    'this run has no scores: no validation, or no labels'
                )  # fmt: skip
                raise ValueError(
                    f'{type(hook).__name__}.{option} is {name!r}, and {given}{did_you_mean(name, names)}'
                )
