"""Writes the tables behind the scores, and warns where the best checkpoint is chosen by labels."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from omh_mmseg.engine.hooks.assignment_hook import unsupervised_metrics
from omh_mmseg.evaluation.score_table import write_class_csv, write_confusion_csv
from omh_mmseg.registry import HOOKS
from omh_mmseg.structures.assignment import write_assignment
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

    def __init__(self, pictures: bool = True, out_dir: str | None = None) -> None:
        self.pictures = pictures
        self.out_dir = out_dir

    def before_train(self, runner: Runner) -> None:
        """Warn of a selection by labels."""
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
        """Write the report of a validation over that of the one before."""
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
