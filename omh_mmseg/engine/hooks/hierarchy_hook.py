"""Watches OMH's plans while training and writes the hierarchy at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from omh_mmseg.engine.hooks.assignment_hook import find_assignment
from omh_mmseg.engine.models import model_of
from omh_mmseg.evaluation.cluster_names import cluster_names
from omh_mmseg.models.omh import OMHHead
from omh_mmseg.registry import HOOKS
from omh_mmseg.transport import Hierarchy
from omh_mmseg.utils.checks import COUNT, SHARE, WEIGHT, ranges
from omh_mmseg.visualization import draw_hierarchy_tree, draw_plan_matrices
from omh_mmseg.visualization.colours import class_colours, level_palettes


@HOOKS.register_module()
class HierarchyHook(Hook):
    """Warns of the failure signatures of docs/methods/omh.md 6, and draws and saves the hierarchy after training.

    Does nothing for a model without an OMH head, so that one config serves host and host + OMH.

    Args:
        interval: Steps between two checks.
        max_sparsity: Share of plan entries above 1 % of the row marginal from which a plan counts as dense.
        min_used: Share of clusters of a level, winning a position of the batch, below which it counts as collapsed.
        max_violation: Relative deviation from the marginals above which the solver counts as not converged.
        out_dir: Where ``hierarchy.json``, ``plans.png`` and ``hierarchy.png`` go; the work directory if None.

    Attributes:
        draws: Whether the two pictures are drawn; whoever draws better ones switches it off.
    """

    priority = 'LOW'

    @ranges(interval=COUNT, max_sparsity=SHARE, min_used=SHARE, max_violation=WEIGHT)
    def __init__(
        self,
        interval: int = 50,
        max_sparsity: float = 0.8,
        min_used: float = 0.5,
        max_violation: float = 0.05,
        out_dir: str | None = None,
    ) -> None:
        self.interval = interval
        self.max_sparsity = max_sparsity
        self.min_used = min_used
        self.max_violation = max_violation
        self.out_dir = out_dir
        self.draws = True

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Compare the figures of this step with the limits."""
        head = _omh_head(runner)
        if head is None or not outputs or not self.every_n_train_iters(runner, self.interval):
            return
        figures = {key: float(value) for key, value in outputs.items() if key.startswith('omh_')}
        for message in self.warnings(head, figures):
            runner.logger.warning(message)

    def warnings(self, head: OMHHead, figures: dict[str, float]) -> list[str]:
        """Messages for the figures that `OMHHead.loss` reports.

        Args:
            head: The head that reported them.
            figures: Its ``omh_*`` values.
        """
        messages = []
        for level, size in enumerate(head.level_sizes, start=1):
            used = figures.get(f'omh_used_{level}', 1.0)
            if used < self.min_used:
                messages.append(
                    f'OMH level {level}: only {round(used * size)} of {size} clusters are in use. The features may be '
                    'collapsing; lower omh_head.match.loss_weight and cluster.loss_weight or raise reach.begin.'
                )
        for level in range(1, len(head.level_sizes)):
            pair, names = f'{level}{level + 1}', f'levels {level} and {level + 1}'
            sparsity, violation = figures.get(f'omh_sparsity_{pair}', 0.0), figures.get(f'omh_violation_{pair}', 0.0)
            if sparsity > self.max_sparsity:
                messages.append(
                    f'OMH plan between {names}: {sparsity:.0%} of its entries carry mass and a cluster has '
                    f'{figures[f"omh_parents_mean_{pair}"]:.1f} effective parents of {head.level_sizes[level - 1]}, so '
                    f'it relates everything to everything; try '
                    f'omh_head.plan.entropy_weight={head.plan.entropy_weight / 2:g}.'
                )
            if violation > self.max_violation:
                messages.append(
                    f'OMH plan between {names}: its marginals are off by {violation:.1%} after '
                    f'{figures[f"omh_iterations_{pair}"]:.0f} iterations; raise '
                    f'omh_head.plan.max_iterations (now {head.plan.max_iterations}) or entropy_weight (now '
                    f'{head.plan.entropy_weight:g}).'
                )
        return messages

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the hierarchy as JSON and pictures, the clusters named and coloured after their classes where known."""
        head = _omh_head(runner)
        if head is None or len(head.level_sizes) < 2:
            return
        folder = Path(self.out_dir or runner.work_dir)
        hierarchy = head.hierarchy()
        written = [hierarchy.to_json(folder / 'hierarchy.json')]
        if self.draws:
            names, palettes = _names_and_palettes(runner, hierarchy)
            written += [
                draw_plan_matrices(folder / 'plans.png', hierarchy, palettes),
                draw_hierarchy_tree(folder / 'hierarchy.png', hierarchy, palettes, names=names),
            ]
        MMLogger.get_current_instance().info('OMH hierarchy written to ' + ', '.join(map(str, written)))


def _names_and_palettes(runner: Runner, hierarchy: Hierarchy) -> tuple[list[list[str | None]], list[np.ndarray]]:
    """Of every level, by the classes that the last validation with labels has matched; see `cluster_names`."""
    assignment, meta = find_assignment(runner.model), runner.visualizer.dataset_meta or {}
    known = {} if assignment is None else assignment.as_dict()
    classes, count = tuple(meta.get('classes') or ()), 1 + max((max(level) for level in known.values()), default=0)
    by_level = [known.get(f'pred_level{level}') for level in range(1, len(hierarchy.level_sizes) + 1)]
    names = [cluster_names(level, classes, size) for level, size in zip(by_level, hierarchy.level_sizes)]
    colours = class_colours(meta.get('palette'), max(len(classes), count))
    return names, level_palettes(hierarchy, colours, by_level[0])


def _omh_head(runner: Runner) -> OMHHead | None:
    model = model_of(runner)
    return getattr(model, 'omh_head', None)
