"""Upstream breakage on import, and in what is imported."""

from __future__ import annotations

import functools
import io
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


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


def import_yapf() -> None:
    """Import yapf, with which mmengine lays out the configs that it logs, whatever its stored grammar is.

    Range: yapf 0.40 to 0.43, which renames the file of its grammar before it is written to the end. Symptom: of two
    processes that import it first on a machine, one stops with ``EOFError: Ran out of input``; after a kill at that
    moment every later one does. The grammar is then read anew and stored whole.
    """
    try:
        import_module('yapf')
    except (EOFError, pickle.UnpicklingError):
        driver: Any = sys.modules['yapf_third_party._ylib2to3.pgen2.driver']
        driver._newer = lambda *_: False
        import_module('yapf')


@functools.cache
def lay_out_configs_by_any_grammar() -> None:
    """See :func:`import_yapf`; the import stays where it was, at the first config that is laid out."""
    from mmengine.config import Config

    original: Any = Config.pretty_text

    def pretty_text(self: Config) -> str:
        import_yapf()
        return original.fget(self)

    Config.pretty_text = property(pretty_text, doc=original.__doc__)
