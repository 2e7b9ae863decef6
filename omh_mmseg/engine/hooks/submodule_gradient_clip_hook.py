"""Clips the gradient of one part of the model."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from omh_mmseg.engine.models import model_of
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import POSITIVE, ranges


@HOOKS.register_module()
class SubmoduleGradientClipHook(Hook):
    """Clips the norm of the gradient of one submodule, just before each step of the optimiser.

    ``optim_wrapper.clip_grad`` clips all parameters together. This hook acts inside ``optimizer.step``: under
    ``AmpOptimWrapper`` the gradients are unscaled by then, and with accumulated gradients it acts on their sum. The
    norm before the clipping joins the figures of the step as ``gradient_norm_`` and the name.

    Args:
        module: Name of the submodule, e.g. ``'decode_head'``.
        max_norm: Largest norm, above 0.

    Raises:
        ValueError: If the norm is not above 0; before training, if the model has no such submodule with trainable
            parameters, or the optimiser is a fused one under a loss scaler, which would see scaled gradients.

    Source: docs/methods/hp.md 3B.10, 8.16.
    """

    # Before the hook that takes the figures of the step to the log.
    priority = 'HIGHEST'

    @ranges(max_norm=POSITIVE)
    def __init__(self, module: str, max_norm: float) -> None:
        self.module = module
        self.max_norm = max_norm
        self.handle: RemovableHandle | None = None
        self._norm: Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        """Attach to the optimiser."""
        model = model_of(runner)
        try:
            submodule = model.get_submodule(self.module)
        except AttributeError as error:
            names = ', '.join(child for child, _ in model.named_children())
            raise ValueError(f'The model has no submodule {self.module!r}; it has {names}.') from error
        parameters = [item for item in submodule.parameters() if item.requires_grad]
        if not parameters:
            raise ValueError(f'model.{self.module} has no trainable parameter whose gradient could be clipped.')
        optimizer = runner.optim_wrapper.optimizer
        if hasattr(runner.optim_wrapper, 'loss_scaler') and getattr(optimizer, '_step_supports_amp_scaling', False):
            raise ValueError(
                'A fused optimiser unscales gradients after they are clipped; remove fused=True from '
                'optim_wrapper.optimizer, or train without --amp.'
            )

        def clip(*_: Any) -> None:
            self._norm = nn.utils.clip_grad_norm_(parameters, self.max_norm)

        self._detach()
        self.handle = optimizer.register_step_pre_hook(clip)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Add the norm of this step's gradient, where the optimiser made a step, to its figures."""
        if outputs is not None and self._norm is not None:
            outputs[f'gradient_norm_{self.module}'] = self._norm
        self._norm = None

    def after_train(self, runner: Runner) -> None:
        """Detach from the optimiser."""
        self._detach()

    def _detach(self) -> None:
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
