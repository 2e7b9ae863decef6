"""Brings the clusterings of a model to their fixed points when its training ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import Tensor

from omh_mmseg.choices import REFIT_POSITIONS
from omh_mmseg.engine.models import model_of
from omh_mmseg.engine.refit import MAX_CODES, collect_codes, named_fields, refit_model
from omh_mmseg.models.prediction.cluster_bias import clusterings
from omh_mmseg.registry import HOOKS
from omh_mmseg.shipped import command_line
from omh_mmseg.utils.checks import COUNT, WEIGHT, ranges

BEFORE = 'before_closing_refit'
"""Key of a checkpoint: the centres that the training left, by field, from which a longer run goes on."""


@HOOKS.register_module()
class ClosingRefitHook(Hook):
    """After the last step, before its checkpoint and validation, refits clusterings to the codes of the train set.

    A trained clustering is not at its fixed point, and its clusters tend to equal sizes. The refit alternates
    assignments and centres over random positions of every training image, with a prior of the clusters' sizes whose
    weight is chosen without labels (`omh_mmseg.models.utils.closing_refit.refit`). The hosts' own protocols have none:
    it is off unless clusterings are named.

    A run that is resumed for more steps goes on from the centres that the training left; a finished one that is
    resumed with this hook newly on is refitted, and its last checkpoint written anew.

    Args:
        clusterings: ``'all'``, ``'levels'`` for those of OMH, ``'none'``, or names among ``'probe'`` (the host's
            cluster probe, SmooSeg's prototypes) and, with OMH, ``'level1'``, ``'level2'``, ...
        positions: Codes of each training image.
        max_codes: Of all training images together: of a set that has more, fewer are drawn of each.
        delta: Fixed weight of the size prior, 0 for none; None to choose it.
        leave_apart: Leave a clustering as it was trained where even the largest size prior would keep its clusters:
            they lie so far apart that nothing is to be gained from their sizes (docs/study/README.md).

    Raises:
        ValueError: On values outside these ranges; before training, if the model has no clustering of a name.

    Source: docs/methods/evaluation.md 6.7.
    """

    # After the figures and losses of the step, before its checkpoint.
    priority = 'LOW'

    @ranges(positions=COUNT, max_codes=COUNT, delta=WEIGHT)
    def __init__(
        self,
        clusterings: str | Sequence[str] = 'none',
        positions: int = REFIT_POSITIONS,
        max_codes: int = MAX_CODES,
        delta: float | None = None,
        leave_apart: bool = False,
    ) -> None:
        if leave_apart and delta is not None:
            raise ValueError(
                f'closing_refit.leave_apart looks at the size prior that is chosen, and delta={delta} is fixed: set '
                'delta=None, or leave_apart=False'
            )
        self.clusterings = clusterings
        self.positions, self.max_codes, self.delta = positions, max_codes, delta
        self.leave_apart = leave_apart
        self.before: dict[str, Tensor] = {}
        self.late = self.looked = False

    def before_train(self, runner: Runner) -> None:
        """Check the names; take the refit of a resumed run back, or catch up on that of a finished one."""
        model = model_of(runner)
        fields = named_fields(model, self.clusterings)
        self.late = self.looked = False
        if not fields and self.clusterings != 'none':
            runner.logger.warning(f'closing_refit.clusterings={self.clusterings!r} names no clustering of this model')
        if runner.iter == 0:
            self.before = {}
        elif runner.iter < runner.max_iters:
            self._take_back(runner, model)
        elif set(fields) - set(self.before):
            known = len(self.before)
            self._refit(runner)
            self.late = len(self.before) > known
        else:
            self.looked = True

    def before_train_epoch(self, runner: Runner) -> None:
        """Write the checkpoint of a finished run anew, once the checkpoint hook is ready and the run is validated."""
        if self.late:
            self._write_again(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Refit after the last step."""
        if runner.iter + 1 == runner.max_iters:
            self._refit(runner)

    def after_train(self, runner: Runner) -> None:
        """Say so where a run ended before its last step."""
        if not self.looked and named_fields(model_of(runner), self.clusterings):
            runner.logger.warning(
                f'the run ended at step {runner.iter} of {runner.max_iters}, and its clusterings were not refitted; '
                f'do so with {command_line("analysis_tools/refit.py")}'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the centres that the training left, of what was refitted."""
        if self.before:
            checkpoint[BEFORE] = {field: centres.cpu() for field, centres in self.before.items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep them until it is known whether a run is resumed."""
        self.before = dict(checkpoint.get(BEFORE) or {})

    def _refit(self, runner: Runner) -> None:
        self.looked, model = True, model_of(runner)
        fields = [field for field in named_fields(model, self.clusterings) if field not in self.before]
        if not fields:
            return
        before = {field: clusterings(model)[field].detach().clone() for field in fields}
        codes = collect_codes(model, runner.train_dataloader, runner.seed or 0, self.positions, self.max_codes)
        found = refit_model(model, codes, fields, self.delta, self.leave_apart)
        self.before |= {field: before[field] for field in found}

    @torch.no_grad()
    def _take_back(self, runner: Runner, model: Any) -> None:
        centres_of = clusterings(model)
        for field, centres in self.before.items():
            centres_of[field].copy_(centres)
        if self.before:
            runner.logger.info(
                'the run goes on from the centres that its training left; its clusterings are refitted at its new end'
            )
        model.cluster_bias.forget()
        self.before = {}

    def _write_again(self, runner: Runner) -> None:
        """Replace the checkpoint of the last step, where the run keeps one."""
        noted = runner.message_hub.runtime_info.get('last_ckpt')
        hook = next((one for one in runner.hooks if isinstance(one, CheckpointHook)), None)
        if noted is None or hook is None or not Path(noted).is_file():
            runner.logger.warning('the refitted clusterings are in no checkpoint: the run has written none')
            return
        hook._save_checkpoint_with_step(runner, runner.iter, meta=dict(epoch=runner.epoch, iter=runner.iter))
