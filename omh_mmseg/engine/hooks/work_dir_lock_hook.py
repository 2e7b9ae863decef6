"""Keeps a second training out of the work directory of a run."""

from __future__ import annotations

from contextlib import ExitStack

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.engine.work_dir_lock import work_dir_lock
from omh_mmseg.registry import HOOKS


@HOOKS.register_module()
class WorkDirLockHook(Hook):
    """Holds `work_dir_lock` from the beginning of a training to its end, on the first rank.

    Two trainings in one directory would overwrite each other's checkpoints. Tests and validations write files of their
    own and are let in. ``tools/train.py`` asks for the lock before it writes anything; the hook is for mmseg's command
    and for runners from Python.

    Raises:
        BlockingIOError: Before the training, if another process trains there.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._held = ExitStack()

    def before_train(self, runner: Runner) -> None:
        """Take the lock."""
        if is_main_process():
            self._held.enter_context(work_dir_lock(runner.work_dir))

    def after_run(self, runner: Runner) -> None:
        """Give it back."""
        self._held.close()
