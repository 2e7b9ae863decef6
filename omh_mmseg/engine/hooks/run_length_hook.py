"""Tells a model how long its run is."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.engine.models import model_of
from omh_mmseg.models.omh import FixedWeight
from omh_mmseg.registry import HOOKS


@HOOKS.register_module()
class RunLengthHook(Hook):
    """Tells OMH the steps of the training, of which ``reach.begin`` may be a share.

    Warns of what never begins: OMH, the temporal term, and what a host names in ``first_steps``.
    """

    priority = 'ABOVE_NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Tell the model; what a resumed run began with stays."""
        model = model_of(runner)
        for setting, first in getattr(model, 'first_steps', {}).items():
            if first >= runner.max_iters:
                runner.logger.warning(
                    f'what begins by {setting} begins at step {first}, and the run has {runner.max_iters} steps: it '
                    'never acts. Train for more steps (train_cfg.max_iters), or lower the setting'
                )
        reach = getattr(getattr(model, 'omh_head', None), 'reach', None)
        if not isinstance(reach, FixedWeight):
            return
        reach.use_run_length(runner.max_iters, resumed=runner.iter > 0)
        if reach.begin >= runner.max_iters:
            runner.logger.warning(
                f'OMH begins at step {reach.begin} and the run has {runner.max_iters} steps: its centres never settle, '
                'and its levels and hierarchy mean nothing. Train for more steps (train_cfg.max_iters), or begin '
                'earlier, such as at a share of the run: --cfg-options model.omh_head.reach.begin=0.4'
            )
