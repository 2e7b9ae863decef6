"""A training step asks the device for no value, so that the host runs ahead of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from omh_mmseg.models.omh import plan_solver
from omh_mmseg.models.utils.photometric_view import PhotometricView
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs

ASKING = {
    '_local_scalar_dense', 'item', 'is_nonzero', 'equal', 'nonzero', 'nonzero_numpy', 'argwhere', 'bincount', 'histc',
    'masked_select', '_unique', '_unique2', 'unique_dim', 'unique_consecutive', 'repeat_interleave',
}  # fmt: skip
"""Operators whose result, or its size, the host has to know."""


class Waiting(TorchDispatchMode):
    """Collects the operators of a block that would make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.on_host = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name.startswith(('index', '_index_put')) and len(args) > 1 and isinstance(args[1], (list, tuple))
        masked = masks and any(isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8) for item in args[1])
        if (name in ASKING or masked) and not self.on_host:
            self.found.append(name)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def host_work(self) -> Iterator[None]:
        """Where tensors live on the host by design."""
        self.on_host = True
        yield
        self.on_host = False


CASES = [
    (host, omh)
    for host in ('STEGO', 'HiddenPositives', 'SmooSeg', 'EAGLE')
    for omh in (None, 'FixedWeight', 'HostShare')
]


@pytest.mark.parametrize(('host', 'omh'), [*CASES, ('PriMaPs', None), ('PriMaPs', 'FixedWeight')])
def test_a_step_asks_for_no_value(host, omh, tiny_vit, host_parts, monkeypatch):
    model = MODELS.build(
        dict(
            type=host,
            num_classes=4,
            backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
            decode_head=dict(type='ProjectionHead', channels=10),
            linear_probe=dict(type='LinearProbe'),
            omh_head=omh
            and dict(
                type='OMHHead', cluster=dict(loss_weight=0.1), reach=dict(type=omh, begin=0),
                centres=dict(type='JointCentres' if host == 'PriMaPs' else 'GradientCentres', start='random'),
            ),  # fmt: skip
            gradient_log_interval=1,
            **host_parts(host),
        )
    )
    model.init_weights()
    model.train()
    if host == 'HiddenPositives':
        for name in ('agnostic_pool', 'specific_pool'):
            getattr(model, name).normal_()
    images = torch.randn(2, 3, 32, 32)
    inputs = dict(anchor=images, neighbour=images.flip(0)) if host == 'STEGO' else images
    if host == 'PriMaPs':  # whose proposals are made once
        proposals = torch.randint(1, 4, (2, 32, 32), dtype=torch.uint8)
        inputs = FrozenInputs(None, (32, 32), images=images, extras=dict(proposals=proposals))
    labelled = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 4, (1, 32, 32))))
    waiting = Waiting()
    # The solver and the judgement of its plans get copies on the host.
    for name in ('hierarchy_plans', 'diagnose_plan'):
        function = getattr(plan_solver, name)

        def on_host(*args: Any, function: Any = function, **kwargs: Any) -> Any:
            with waiting.host_work():
                return function(*args, **kwargs)

        monkeypatch.setattr(plan_solver, name, on_host)
    # torchvision draws what it does to an image on the host.
    draw = PhotometricView.forward

    def drawn(*args: Any) -> Tensor:
        with waiting.host_work():
            return draw(*args)

    monkeypatch.setattr(PhotometricView, 'forward', drawn)
    # Values are checked where they can be looked at, as on a CPU.
    transport = [f'transport.{name}' for name in ('checks', 'diagnostics', 'matching')]
    losses = ('upsampled_cross_entropy', 'object_contrast_loss')
    for module in (*transport, *(f'models.losses.{name}' for name in losses), 'models.omh.centre_rules'):
        monkeypatch.setattr(f'omh_mmseg.{module}.may_look_at', lambda values: False)
    for step in range(3):
        with waiting:
            losses = model.loss(inputs, [labelled, SegDataSample()])
            torch.stack([value for name, value in losses.items() if 'loss' in name]).sum().backward()
        if step == 0:
            # The first step may ask what others have written to the buffers.
            waiting.found.clear()
    assert waiting.found == []
