"""Small tensors on the host, without making it wait for what the device has still to compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """Copies tensors to the host while the device goes on.

    `start` puts the copy in the device's queue, behind what has been asked of it so far, and `finish` waits for that
    much alone. Started at the beginning of a training step, the copy has long arrived when its end comes to it. Where
    there is no such queue, `finish` copies.
    """

    def __init__(self) -> None:
        self._pending: tuple[list[tuple[int, int]], Tensor, Any] | None = None

    def __reduce__(self) -> tuple[type[HostCopy], tuple[()]]:
        # Copies on their way belong to the step that asked for them.
        return HostCopy, ()

    def start(self, tensors: Sequence[Tensor]) -> None:
        """Begin to copy tensors of one device; a copy begun earlier is given up."""
        self._pending = None
        if tensors[0].device.type == 'cuda':
            self._pending = _versions(tensors), *_queued(_packed(tensors))

    def finish(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors on the host, in float64 and without gradient; copied anew if one has changed since `start`."""
        pending, self._pending = self._pending, None
        if pending is not None and pending[0] == _versions(tensors):
            pending[2].synchronize()
            return _unpacked(pending[1], tensors)
        return _unpacked(_packed(tensors).cpu(), tensors)


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of the host on a device, in float64, without waiting for it."""
    packed = _packed(tensors)
    if device.type == 'cuda':
        # A copy from memory that may be moved would wait for the device.
        packed = packed.pin_memory()
    return _unpacked(packed.to(device, non_blocking=True), tensors)


def _queued(packed: Tensor) -> tuple[Tensor, Any]:
    """A copy on the host, and the event after which it holds the values."""
    host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
    host.copy_(packed, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(packed.device))
    return host, arrived


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().to(torch.float64).flatten() for tensor in tensors])


def _unpacked(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = packed.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like)]


def _versions(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    return [(id(tensor), tensor._version) for tensor in tensors]
