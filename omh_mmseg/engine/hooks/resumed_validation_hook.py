"""Makes up for a validation that a killed run has missed."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from omh_mmseg.registry import HOOKS


@HOOKS.register_module()
class ResumedValidationHook(Hook):
    """Validates before a resumed run goes on, where validation follows the step of its checkpoint.

    mmengine writes the checkpoint of a step before it validates, and goes on with the next step after a resume. A run
    that was killed in between would never learn the classes of its clusters at that step, nor have the scores that a
    best checkpoint, an early stop or a plateau of the learning rate depend on: they are not in the checkpoint either
    way.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Validate, once all hooks are ready for it."""
        loop = runner.train_loop
        if runner.iter == 0 or runner.val_loop is None or not isinstance(loop, IterBasedTrainLoop):
            return
        loop._decide_current_val_interval()
        due = runner.iter % loop.val_interval == 0 or runner.iter == loop.max_iters
        if due and runner.iter >= loop.val_begin:
            runner.val_loop.run()
