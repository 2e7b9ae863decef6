"""Warns of clusters that live on the border of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.engine.models import find_model
from omh_mmseg.evaluation.border import REMEDY, BorderCluster, BorderCounts, describe
from omh_mmseg.registry import HOOKS
from omh_mmseg.shipped import command_line
from omh_mmseg.utils.checks import ranges


@HOOKS.register_module()
class BorderClusterHook(Hook):
    """After a training, and after a test, names the clusters that live on the border of the image.

    It counts the predictions that the last validation, or the test, makes anyway; see
    `omh_mmseg.evaluation.border.BorderCounts`. Nothing is said without a validation.
    """

    priority = 'LOW'

    @ranges()
    def __init__(self) -> None:
        self._counts: BorderCounts | None = None
        self._found: dict[str, list[BorderCluster]] = {}

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin anew."""
        self._begin(runner)

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin anew."""
        self._begin(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Count a batch."""
        self._add(outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Count a batch."""
        self._add(outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Sum over the processes."""
        self._end()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Sum over the processes and warn."""
        self._end()
        self._warn(runner)

    def after_train(self, runner: Runner) -> None:
        """Warn of what the last validation showed."""
        self._warn(runner)

    def _begin(self, runner: Runner) -> None:
        model = find_model(runner.model, lambda one: hasattr(one, 'assignment') and hasattr(one, 'backbone'))
        stride = getattr(getattr(model, 'backbone', None), 'stride', None)
        self._found = {}
        self._counts = None if stride is None else BorderCounts(model.assignment.sizes, stride)

    def _add(self, outputs: Sequence[Any] | None) -> None:
        if self._counts is not None:
            self._counts.add(outputs or ())

    def _end(self) -> None:
        if self._counts is None:
            return
        totals = self._counts.tensor()
        all_reduce(totals)
        self._counts.take(totals)
        self._found = {field: self._counts.border_clusters(field) for field in self._counts.sizes}

    def _warn(self, runner: Runner) -> None:
        found = [one for field in self._found.values() for one in field]
        if found:
            runner.logger.warning(
                f'clusters live on the border of the image: {describe(found)}. {REMEDY}. All figures: '
                f'{command_line("analysis_tools/border_clusters.py")} WORK_DIR'
            )
