"""Counts training steps in a buffer without asking the device for its value at every step."""

from __future__ import annotations

from torch import Tensor


class StepCounter:
    """Knows on the host what an integer buffer holds, and reads the buffer only after others wrote to it.

    The buffer stays what is saved, loaded, copied and broadcast; ``int(buffer)`` at every step would make the host wait
    for the device. Others who write to it (a checkpoint, ``fill_``, a move to another device) are noticed by the
    buffer's identity and its version, which autograd raises with every change in place. Writing through ``.data`` is
    not noticed.
    """

    def __init__(self) -> None:
        self._value = 0
        self._seen: tuple[int, int] | None = None

    def read(self, buffer: Tensor) -> int:
        """Value of the buffer, a scalar of an integer dtype."""
        seen = (id(buffer), buffer._version)
        if seen != self._seen:
            self._value, self._seen = int(buffer), seen
        return self._value

    def advance(self, buffer: Tensor) -> None:
        """Add 1 to the buffer in place."""
        value = self.read(buffer)
        buffer += 1
        self._value, self._seen = value + 1, (id(buffer), buffer._version)
