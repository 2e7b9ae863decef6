"""The model of a run, out of what is wrapped around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def model_of(runner: Runner) -> Any:
    """The model, out of the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def find_model(model: Any, fits: Callable[[Any], bool]) -> Any:
    """The first that fits of a model and what it wraps (distributed, test-time augmentation); None without one."""
    while model is not None and not fits(model):
        model = getattr(model, 'module', None)
    return model
