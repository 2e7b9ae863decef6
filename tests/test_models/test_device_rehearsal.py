"""Every host, with and without OMH, on a device that holds no values: nothing stays on the processor, nothing waits.

torch's ``meta`` device stands in for an accelerator. It knows shapes, types and devices, refuses to mix with tensors on
the processor, and cannot answer when it is asked for a value.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import omh_mmseg
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs

PACKAGE = Path(omh_mmseg.__file__).parent
WAITS = {
    ('models/utils/step_counter.py', 'read'): 'a counter is read once after others wrote to it, then known on the host',
    ('models/segmentors/hidden_positives.py', '_require_pools'): 'asked once after somebody wrote to the pools',
    ('models/segmentors/hidden_positives.py', 'synchronise_average'): 'before the first step alone',
    ('models/omh/host_copy.py', 'finish'): 'plans are solved on the host; on CUDA the copy was begun with the step',
    ('models/omh/k_means_start.py', 'step'): 'k-means starts the centres on the host, once in a training',
    ('models/prediction/cluster_assignment.py', 'known'): 'the classes go into the metadata of a batch of masks',
    ('models/prediction/cluster_assignment.py', 'as_dict'): 'the classes go into the metadata of a batch of masks',
    ('models/data_preprocessor.py', 'cast_data'): 'images come from the processor; in pinned memory without a wait',
}
"""Where the host may wait for the device, by file of the package and function, and why."""
ASKING = {
    '_local_scalar_dense', 'item', 'is_nonzero', 'equal', 'nonzero', 'nonzero_numpy', 'argwhere', 'bincount', 'histc',
    'masked_select', '_unique', '_unique2', 'unique_dim', 'unique_consecutive', 'repeat_interleave',
}  # fmt: skip
"""Operators whose result, or its size, the host has to know."""


class Rehearsal(TorchDispatchMode):
    """Lets a block run on the ``meta`` device, and stops it where an accelerator would fail or keep the host waiting.

    A wait that `WAITS` lists is answered with made-up values. An operator that mixes devices fails, numbers (tensors of
    no dimension) on the processor aside, which go along with a kernel.

    Attributes:
        waited: Entries of `WAITS` that were met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waited: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [tensor for tensor in tensors if tensor.device.type == 'meta']
        left = [tensor for tensor in tensors if tensor.device.type == 'cpu' and tensor.dim() > 0]
        if name in ('_to_copy', 'copy_'):
            to_device = args[0].device.type == 'meta' if name == 'copy_' else _is_meta(kwargs.get('device'))
            waits = not (kwargs.get('non_blocking') or (name == 'copy_' and len(args) > 2 and args[2]))
            source = args[1] if name == 'copy_' else args[0]
            if to_device and source.device.type == 'cpu' and waits:
                self._wait(f'{name} from the processor')
            elif source.device.type == 'meta' and not to_device and _leaves(name, args, kwargs):
                self._wait(f'{name} to the processor')
                return _made_up(source, kwargs.get('dtype') or source.dtype)
            return func(*args, **kwargs)
        if not on_device:
            return func(*args, **kwargs)
        assert not left, f'{_place()}: {name} mixes the device with tensors {_shapes(left)} on the host'
        masks = args[1] if name.startswith(('index', '_index_put')) and isinstance(args[1], (list, tuple)) else ()
        masked = any(isinstance(mask, Tensor) and mask.dtype in (torch.bool, torch.uint8) for mask in masks)
        if name in ASKING or masked:
            self._wait(name)
            return _made_up(args[0], args[0].dtype).item()
        return func(*args, **kwargs)

    def _wait(self, what: str) -> None:
        places = set(_frames()) & WAITS.keys()
        assert places, f'{_place()}: {what} makes the host wait for the device'
        self.waited |= places


def _shapes(tensors: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors]


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == 'meta'


def _leaves(name: str, args: tuple, kwargs: dict) -> bool:
    return name == 'copy_' or kwargs.get('device') is not None


def _made_up(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Positive numbers, in matrices rows of length 1; zeros for counts, and the answer yes."""
    if dtype == torch.bool or not dtype.is_floating_point:
        return torch.full(like.shape, dtype == torch.bool, dtype=dtype, device='cpu')
    generator = torch.Generator().manual_seed(like.numel())
    values = torch.rand(like.shape, generator=generator, dtype=dtype) + 0.1
    return values if values.dim() < 2 else nn.functional.normalize(values, dim=-1)


def _frames() -> list[tuple[str, str]]:
    """File and function of the package's frames, the innermost first."""
    frames, frame = [], sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            frames.append((str(path.relative_to(PACKAGE)), frame.f_code.co_name))
        elif frame.f_code.co_name == 'cast_data':
            frames.append(('models/data_preprocessor.py', 'cast_data'))
        frame = frame.f_back
    return frames


def _place() -> str:
    """Line of the package that asks, for messages."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f'{path.relative_to(PACKAGE)}:{frame.f_lineno}'
        frame = frame.f_back
    return 'outside the package'


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsal]:
    """A `Rehearsal` that is entered by the test; autocast, which ``meta`` does not have, is off there."""
    autocast, enabled = torch.autocast, torch.is_autocast_enabled

    def without(kind: str, *args: Any, **options: Any) -> Any:
        return nullcontext() if kind == 'meta' else autocast(kind, *args, **options)

    def values_of_the_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """On an accelerator values are copied there, and the host waits; on ``meta`` they are not even looked at."""

        def checked(*args: Any, **options: Any) -> Tensor:
            made = make(*args, **options)
            assert not made.is_meta or _is_meta(getattr(args[0], 'device', None)), f'{_place()}: values from the host'
            return made

        return checked

    for name in ('tensor', 'as_tensor'):
        monkeypatch.setattr(torch, name, values_of_the_host(getattr(torch, name)))
    monkeypatch.setattr(Tensor, 'new_tensor', None)
    monkeypatch.setattr(torch, 'autocast', without)
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda kind='cpu': kind != 'meta' and enabled(kind))
    yield Rehearsal()


HOSTS = ('STEGO', 'HiddenPositives', 'SmooSeg', 'EAGLE', 'PriMaPs')
OMH = {
    'none': None,
    'gradient': dict(centres=dict(start='kmeans'), reach=dict(type='HostShare', begin=1)),
    'momentum': dict(
        centres=dict(type='MomentumCentres', prior=1.0), cluster=dict(loss_weight=0.1),
        match=dict(direction='both'), reach=dict(type='FixedWeight', begin=1),
    ),
    'joint': dict(
        centres=dict(type='JointCentres'), plan=dict(marginal='activation'), reach=dict(type='FixedWeight', begin=0)
    ),
}  # fmt: skip


@pytest.fixture
def on_device(tiny_vit: dict, host_parts: Callable[[str], dict]) -> Callable[..., nn.Module]:
    """``on_device('STEGO', 'none', **parts)``: a host with everything that it holds on the ``meta`` device."""

    def build(host: str, omh: str = 'none', **parts: Any) -> nn.Module:
        head = OMH[omh]
        if host == 'PriMaPs' and head is not None and omh != 'joint':  # whose code no loss can move
            head = head | dict(match=None, cluster=None)
        model = MODELS.build(
            dict(
                type=host,
                num_classes=4,
                data_preprocessor=dict(
                    type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True,
                    test_cfg=dict(size_divisor=8),
                ),
                backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
                decode_head=dict(type='ProjectionHead', channels=10),
                linear_probe=dict(type='LinearProbe'),
                omh_head=None if head is None else dict(type='OMHHead', **copy.deepcopy(head)),
                gradient_log_interval=1,
                **host_parts(host),
                **parts,
            )  # fmt: skip
        )
        model.init_weights()
        return model.to('meta')

    return build


def labelled(size: int = 32, device: str = 'meta') -> SegDataSample:
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, size, size, dtype=torch.long, device=device)))
    sample.set_metainfo(dict(img_shape=(size, size), ori_shape=(size, size)))
    return sample


def batch_of(model: nn.Module, cached: bool) -> Any:
    """Images on the device, or what is frozen of them; two views for STEGO."""
    images: Any = torch.empty(2, 3, 32, 32, device='meta')
    if type(model).__name__ == 'PriMaPs':
        # Proposals are made once, image by image, and their number is asked for; with or without the features.
        features = model.backbone(images) if cached else None
        extras = dict(proposals=torch.empty(2, 32, 32, dtype=torch.uint8, device='meta'))
        return FrozenInputs(features, (32, 32), mirrored=features, images=images, extras=extras)
    if cached:
        with torch.no_grad():
            frozen = model.freeze(images)
        images = FrozenInputs(frozen.features, (32, 32), frozen.extras, images=images)
    return dict(anchor=images, neighbour=images) if type(model).__name__ == 'STEGO' else images


QUICK = (('none', True), ('gradient', False))
CASES = [
    pytest.param(host, omh, cached, marks=[] if (omh, cached) in QUICK else pytest.mark.slow)
    for host in HOSTS
    for omh in OMH
    for cached in (False, True)
]


@pytest.mark.parametrize(('host', 'omh', 'cached'), CASES)
def test_training(host: str, omh: str, cached: bool, on_device: Callable, rehearsal: Rehearsal) -> None:
    """Steps before, at and after the one in which k-means starts the centres, forward and backward."""
    model = on_device(host, omh).train()
    with rehearsal:
        inputs = batch_of(model, cached)
        for _ in range(3):
            if host == 'HiddenPositives':
                for name, rows in model.pool_vectors(inputs).items():
                    getattr(model, name)[: len(rows)].copy_(rows)
            losses = model.loss(inputs, [labelled(), SegDataSample()])
            total = torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()
            model.zero_grad()
            total.backward()
    assert total.device.type == 'meta'
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert learning and all(parameter.grad is not None and parameter.grad.is_meta for parameter in learning)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    # The step's number does not grow on the device: what happens at step `begin` is asked for by the counter.
    assert model.step == 3
    k_means = ('models/omh/k_means_start.py', 'step')
    assert (k_means in rehearsal.waited) == (omh in ('gradient', 'momentum'))


@pytest.mark.parametrize('mode', ['whole', 'flip', 'slide'])
@pytest.mark.parametrize('host', HOSTS)
def test_prediction(host: str, mode: str, on_device: Callable, rehearsal: Rehearsal) -> None:
    """Masks of probe, linear probe and all levels, at the size of the label."""
    options = dict(
        whole=dict(), flip=dict(flip=True), slide=dict(mode='slide', crop_size=16, stride=8)
    )[mode]  # fmt: skip
    model = on_device(host, 'gradient', test_cfg=options).eval()
    with rehearsal, torch.no_grad():
        data = dict(inputs=[torch.zeros(3, 32, 32, dtype=torch.uint8)] * 2, data_samples=[labelled(40, 'cpu')] * 2)
        samples = model.test_step(data)
    for name in ('pred_sem_seg', 'pred_linear', 'pred_level1', 'pred_level2', 'pred_level3'):
        masks = samples[0].get(name).data
        assert masks.is_meta and masks.shape == (1, 40, 40)


@pytest.mark.parametrize('host', HOSTS)
def test_test_time_augmentation(host: str, on_device: Callable, rehearsal: Rehearsal) -> None:
    """Codes of a mirrored and of a larger view are averaged."""
    model = MODELS.build(dict(type='CodeAveragingTTA', module=on_device(host, 'gradient'))).eval()

    def view(size: int, flip: bool) -> tuple[list[Tensor], list[SegDataSample]]:
        sample = labelled(size, 'cpu')
        sample.set_metainfo(dict(flip=flip, flip_direction='horizontal' if flip else None))
        return [torch.zeros(3, size, size, dtype=torch.uint8)], [sample]

    views = [view(32, False), view(32, True), view(48, False)]
    with rehearsal, torch.no_grad():
        (sample,) = model.test_step(dict(inputs=[one for one, _ in views], data_samples=[one for _, one in views]))
    assert sample.pred_level3.data.is_meta


def test_it_finds_a_tensor_on_the_processor_and_a_wait(rehearsal: Rehearsal) -> None:
    values = torch.empty(3, device='meta')
    with rehearsal:
        with pytest.raises(AssertionError, match='mul mixes the device'):
            values * torch.ones(3)
        waits = (lambda: bool(values.sum() > 0), values.tolist, values.cpu, values.nonzero, lambda: values[values > 0])
        for wait in waits:
            with pytest.raises(AssertionError, match='makes the host wait'):
                wait()
        with pytest.raises(AssertionError, match='from the processor'):
            torch.ones(3).to('meta')
        with pytest.raises(AssertionError, match='values from the host'):
            torch.tensor([1, 2], device='meta')
        assert (values * torch.tensor(2.0)).is_meta


def test_every_listed_wait_is_there() -> None:
    """The list names functions of the package."""
    for file, function in WAITS:
        assert f'def {function}(' in (PACKAGE / file).read_text() or function == 'cast_data'
