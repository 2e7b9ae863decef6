"""The only place that knows of upstream breakage: each item names its version range and its symptom."""

from __future__ import annotations

import functools
import io
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest import mock

from omh_mmseg.launchers import set_rank_variables
from omh_mmseg.stack import check_stack

TRUST = 'OMH_TRUST'


@functools.cache
def repair_torchvision() -> Any:
    """Define the operator schemas that a torchvision linked against another torch fails to bring.

    Range: torchvision 0.28.0 built for CUDA beside torch 2.13.0 for CPU; any such pair. Symptom: ``operator
    torchvision::nms does not exist`` on ``import torchvision``, thus on ``import mmpretrain.models`` and in every
    runner's report of the environment. Inert where torchvision imports or is not installed; every other error passes.

    Returns:
        The ``torch.library.Library`` that holds the schemas, which live as long as it does; None where not needed.
    """
    import torch

    try:
        import_module('torchvision')
    except ModuleNotFoundError as error:
        if error.name != 'torchvision':
            raise
    except RuntimeError as error:
        if 'operator torchvision::nms does not exist' not in str(error):
            raise
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for name in ('nms', 'qnms'):
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        import_module('torchvision')
        return library
    return None


def history_statistic(owner: type, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` in checkpoints: the statistics of mmengine's ``HistoryBuffer`` and nothing else.

    Args:
        owner: The class that the checkpoint names.
        name: The attribute of it.

    Raises:
        ValueError: Anything but a statistic is asked for, as a harmful checkpoint would.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise ValueError(f'a checkpoint asked for {owner!r}.{name}; only statistics of HistoryBuffer are allowed')
    return getattr(HistoryBuffer, name)


@functools.cache
def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read what mmengine writes into its own checkpoints.

    Range: torch >= 2.6 with mmengine <= 0.10.7 and onedl-mmengine <= 0.10.12. Symptom: ``UnpicklingError ...
    HistoryBuffer`` (original), or a page of warning and a silent fall-back to unsafe loading (fork) as soon as a logged
    number is not an int64 or float64. Only mmengine's buffer and numpy's number types are listed, under their names in
    numpy 1 and 2; ``getattr``, which the files name, is replaced by :func:`history_statistic`, for the real one would
    let a checkpoint run anything.

    All entries are (object, name) pairs: the fork removes the bare objects that it listed itself after each load.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    core: Any = getattr(np, '_core', None) or import_module('numpy.core')
    allowed: list[Any] = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (history_statistic, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed.append((core.multiarray._reconstruct, f'{module}._reconstruct'))
        allowed.append((core.multiarray.scalar, f'{module}.scalar'))
    for code in np.typecodes['All']:
        if code != 'O':
            kind = type(np.dtype(code))
            allowed.append((kind, f'{kind.__module__}.{kind.__qualname__}'))
    torch.serialization.add_safe_globals(allowed)


def is_trusted() -> bool:
    """Whether the user lets checkpoints run code: ``OMH_TRUST=1``, which ``--trust`` of the commands sets."""
    return os.environ.get(TRUST, '') not in ('', '0')


@contextmanager
def read_as_data(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make every ``torch.load`` inside read tensors and plain values alone, unless the user trusts the files.

    Raises:
        ValueError: The file ``path`` holds anything else, or is no checkpoint.
    """
    if is_trusted():
        yield
        return
    try:
        with mock.patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD='1'):
            yield
    except pickle.UnpicklingError as error:
        reason = ' '.join(str(error).partition('WeightsUnpickler error:')[2].split())[:120]
        raise ValueError(
            f'{path} holds more than tensors and plain values, or is damaged ({reason}); it was not read, as it could '
            f'run code. Use the checkpoint of a run, or, if you trust whoever made it, set {TRUST}=1 (--trust in the '
            'commands of this library): it is then read as it is, and what it holds is run.'
        ) from error
    except (EOFError, RuntimeError, UnicodeDecodeError) as error:
        reason = f'{type(error).__name__}: {" ".join(str(error).split())[:120]}'
        raise ValueError(f'{path} is damaged or no checkpoint ({reason}). Copy or download it again.') from error


@functools.cache
def read_checkpoints_as_data() -> None:
    """Let mmengine's loaders, and so its runner and mmseg's tools, read checkpoints by `read_as_data`.

    Range: onedl-mmengine <= 0.10.12, which falls back to ``weights_only=False``, and every mmengine for checkpoints at
    an address. Symptom: a checkpoint runs the code that it pickles.
    """
    from mmengine.runner import checkpoint as module

    original = module.CheckpointLoader.load_checkpoint.__func__

    def load_checkpoint(cls: Any, filename: str, *args: Any, **options: Any) -> Any:
        with read_as_data(filename):
            return original(cls, filename, *args, **options)

    def load_once(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return module.torch.load(file, map_location=map_location, weights_only=not is_trusted())

    module.CheckpointLoader.load_checkpoint = classmethod(functools.wraps(original)(load_checkpoint))
    if hasattr(module, '_safe_torch_load'):
        module._safe_torch_load = load_once


@contextmanager
def quiet_import() -> Iterator[None]:
    """Silence two notes while the mm packages are imported; everything else still appears.

    Range: every MMCV without compiled operators; onedl-mmsegmentation 1.4.2, onedl-mmpretrain 1.3.6. Symptoms: a
    ``UserWarning`` that ``MultiScaleDeformableAttention`` cannot be imported, although nothing here uses a compiled
    operator, and ``Could not import OneDL`` on the standard output, once per package, about an optional cloud service.
    """
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(printed):
            warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if line.strip() != 'Could not import OneDL':
                sys.stdout.write(line)


@contextmanager
def compiled_operators_stub() -> Iterator[None]:
    """Stand in for ``mmcv._ext`` while ``mmseg.models`` is imported, and take the stand-in away afterwards.

    Range: MMSegmentation <= 1.2.2 with mmcv-lite. Symptom: ``No module named 'mmcv._ext'`` on ``import mmseg.models``.
    Inert with a full mmcv and with the forks, which import without. Calling a compiled operator afterwards still fails.
    """
    if find_spec('mmcv._ext') is not None:
        yield
        return

    def absent_operator(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError('this operator needs the full mmcv; mmcv-lite has no compiled operators')

    class Extension(ModuleType):
        def __getattr__(self, name: str) -> Callable[..., None]:
            if name.startswith('__'):
                raise AttributeError(name)
            return absent_operator

    sys.modules['mmcv._ext'] = Extension('mmcv._ext')
    try:
        yield
    finally:
        del sys.modules['mmcv._ext']


@functools.cache
def keep_drop_probability_plain() -> None:
    """Keep stochastic depth's probability a Python float.

    Range: mmpretrain <= 1.2.0 and onedl-mmpretrain <= 1.3.6, whose transformers take it from ``np.linspace``. Symptom:
    ``Guard failed ... from_numpy(self.drop_prob)`` under ``torch.compile``. Values are unchanged.
    """
    from mmcv.cnn.bricks.drop import DropPath

    original = DropPath.__init__

    @functools.wraps(original)
    def initialise(self: Any, drop_prob: float = 0.1) -> None:
        original(self, float(drop_prob))

    DropPath.__init__ = initialise


@functools.cache
def alias_channel_conversion() -> None:
    """Give mmseg's data preprocessor the attribute name that its fork and mmengine use.

    Range: MMSegmentation <= 1.2.2. Symptom: ``'...DataPreprocessor' object has no attribute '_channel_conversion'`` in
    classes that extend it. Inert with the forks.
    """
    from mmengine.model import ImgDataPreprocessor
    from mmseg.models import SegDataPreProcessor

    if not issubclass(SegDataPreProcessor, ImgDataPreprocessor):
        SegDataPreProcessor._channel_conversion = property(lambda self: self.channel_conversion)


@functools.cache
def distribute_without_gpu() -> None:
    """Let mmengine start processes that talk over gloo where there is no accelerator, under every launcher.

    Range: mmengine <= 0.10.7, onedl-mmengine <= 0.10.12. Symptoms: ``module 'torch._C' has no attribute
    '_cuda_setDevice'`` or ``Found no NVIDIA driver`` from ``init_dist``, whatever the back end; a bare ``KeyError``
    where a launcher's variables are missing; a start that waits for a machine called ``not found`` where Slurm's
    scontrol is absent; under MPI, ranks that look for the GPU of rank 0, as ``LOCAL_RANK`` is not set. With an
    accelerator the process group is mmengine's own.
    """
    import torch
    from mmengine.device import get_device
    from mmengine.dist import utils

    on_processors = utils._init_dist_pytorch

    def replacement(launcher: str, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def start(backend: str, **options: Any) -> None:
            set_rank_variables(launcher)
            if get_device() != 'cpu':
                original(backend, **options)
                return
            port = options.pop('port', None)
            if port is not None:
                os.environ['MASTER_PORT'] = str(port)
            with mock.patch.object(torch.cuda, 'set_device'):
                on_processors('gloo' if backend == 'nccl' else backend, **options)

        return start

    for launcher in ('pytorch', 'slurm', 'mpi'):
        name = f'_init_dist_{launcher}'
        setattr(utils, name, replacement(launcher, getattr(utils, name)))


@functools.cache
def wrap_models_without_gpu() -> None:
    """Let mmengine's runner wrap a model that is on processors for a distributed run.

    Range: mmengine <= 0.10.7, onedl-mmengine <= 0.10.12. Symptom: ``DistributedDataParallel device_ids and
    output_device arguments only work with ... GPU modules``, as the runner always names a GPU.
    """
    from mmengine.model import MMDistributedDataParallel

    original = MMDistributedDataParallel.__init__

    @functools.wraps(original)
    def initialise(self: Any, module: Any, *args: Any, **options: Any) -> None:
        if all(parameter.device.type == 'cpu' for parameter in module.parameters()):
            options['device_ids'] = None
        original(self, module, *args, **options)

    MMDistributedDataParallel.__init__ = initialise


@functools.cache
def apply() -> None:
    """Check the installed stack and make it importable; further calls do nothing.

    Runs before anything of mmseg or mmpretrain is imported from this package.

    Raises:
        StackError: See :func:`check_stack`.
    """
    family = check_stack()
    repair_torchvision()
    with quiet_import(), compiled_operators_stub() if family == 'openmmlab' else nullcontext():
        for module in ('mmseg.models', 'mmseg.datasets', 'mmpretrain.models'):
            import_module(module)
    alias_channel_conversion()
    allow_checkpoint_classes()
    read_checkpoints_as_data()
    keep_drop_probability_plain()
    distribute_without_gpu()
    wrap_models_without_gpu()
