"""Moving average of a head that makes nobody wait."""

from __future__ import annotations

from mmengine.model import ExponentialMovingAverage
from torch import nn

from omh_mmseg.models.utils.step_counter import StepCounter


class HeadAverage(ExponentialMovingAverage):
    """mmengine's exponential moving average, whose number of updates is known on the host.

    mmengine compares it on the device, twice at each update.

    Args:
        model: What to average; the average starts as a copy.
        momentum: Share of the model in an update, in (0, 1).
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        super().__init__(model, momentum)
        self._step_counter = StepCounter()

    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model; at the first time, to it."""
        first = self._step_counter.read(self.steps) == 0
        # Not `avg_parameters`, which a move to another kind of device may leave behind.
        for average, present in zip(self.module.parameters(), model.parameters()):
            if first:
                average.data.copy_(present.data)
            else:
                self.avg_func(average.data, present.data, self.steps)
        for copied, buffer in zip(self.module.buffers(), model.buffers()):
            copied.data.copy_(buffer.data)
        self._step_counter.advance(self.steps)
