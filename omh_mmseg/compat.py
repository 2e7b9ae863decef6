"""The only place that knows of upstream breakage: each item names its version range and its symptom."""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from omh_mmseg.checkpoint_files import is_trusted, named_content, read_as_data
from omh_mmseg.stack import check_stack


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


@functools.cache
def read_checkpoints_as_data() -> None:
    """Let mmengine's loaders, and so its runner and mmseg's tools, read checkpoints by `read_as_data`.

    Range: onedl-mmengine <= 0.10.12, which falls back to ``weights_only=False``, and every mmengine for checkpoints at
    an address. Symptom: a checkpoint runs the code that it pickles. Further, with every mmengine: ``AttributeError:
    'list' object has no attribute 'get'`` where a file holds something else.
    """
    from mmengine.runner import checkpoint as module

    original = module.CheckpointLoader.load_checkpoint.__func__

    def load_checkpoint(cls: Any, filename: str, *args: Any, **options: Any) -> Any:
        with read_as_data(filename):
            content = original(cls, filename, *args, **options)
        return named_content(content, filename)

    def load_once(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return module.torch.load(file, map_location=map_location, weights_only=not is_trusted())

    module.CheckpointLoader.load_checkpoint = classmethod(functools.wraps(original)(load_checkpoint))
    if hasattr(module, '_safe_torch_load'):
        module._safe_torch_load = load_once


@functools.cache
def separate_runs() -> None:
    """Let runs of one process share nothing.

    Range: mmengine <= 0.10.7, onedl-mmengine <= 0.10.12, which find loggers, message hubs, scopes and visualisers by
    name and name the first three, and the folder of the log, after the config and the second. Symptoms: a second run
    whose config names its visualiser like the first's (all do: ``visualizer``) writes scalars and pictures to the
    first's folder; runs that begin within one second share logger and figures; ``randomness.deterministic`` and
    ``env_cfg.cudnn_benchmark`` of one run hold for the next.
    """
    import torch
    from mmengine.runner import Runner
    from mmengine.visualization import Visualizer

    setup_env, set_randomness, build_visualizer = Runner.setup_env, Runner.set_randomness, Runner.build_visualizer
    begun: Counter[str] = Counter()
    made_deterministic: list[bool] = []

    @functools.wraps(setup_env)
    def setup(self: Any, env_cfg: Any) -> None:
        torch.backends.cudnn.benchmark = False
        setup_env(self, env_cfg)
        begun[self._timestamp] += 1
        if begun[self._timestamp] > 1:
            self._timestamp += f'_{begun[self._timestamp]}'

    @functools.wraps(set_randomness)
    def seed(self: Any, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        if made_deterministic and not deterministic:
            made_deterministic.clear()
            torch.backends.cudnn.deterministic = False
            torch.use_deterministic_algorithms(False)
        set_randomness(self, seed, diff_rank_seed, deterministic)
        if deterministic:
            made_deterministic.append(True)

    @functools.wraps(build_visualizer)
    def build(self: Any, visualizer: Any = None) -> Any:
        if isinstance(visualizer, dict) and Visualizer.check_instance_created(visualizer.get('name', '')):
            visualizer = {**visualizer, 'name': f'{visualizer["name"]}_{self.experiment_name}'}
        return build_visualizer(self, visualizer)

    Runner.setup_env, Runner.set_randomness, Runner.build_visualizer = setup, seed, build


@contextmanager
def _renamed_when_complete(path: str | os.PathLike[str]) -> Iterator[str]:
    """Name of a file beside ``path`` that takes its name at the end and vanishes on any exception."""
    temporary = f'{os.fspath(path)}.part'
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class _Postponed:
    """A file backend that removes nothing before `finish`."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._removals: list[tuple[Callable[[str], None], str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Remember to remove a file."""
        self._removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        """Remember to remove a folder."""
        self._removals.append((self._backend.rmtree, path))

    def finish(self, kept: set[str]) -> None:
        """Remove all of it, less what has been written anew."""
        for remove, path in self._removals:
            if path not in kept:
                remove(path)


@functools.cache
def write_checkpoints_completely() -> None:
    """Let checkpoints, and the note of the newest, be complete or absent, and old ones go after new ones are there.

    Range: every mmengine. Symptoms: a full disk or a kill leaves half an ``iter_N.pth`` or an empty
    ``last_checkpoint``, and with ``max_keep_ckpts=1`` or ``save_best`` nothing else, as the old file is removed first.
    """
    from mmengine.fileio import LocalBackend
    from mmengine.hooks import CheckpointHook
    from mmengine.hooks import checkpoint_hook as module

    put = LocalBackend.put

    @functools.wraps(put)
    def put_completely(self: Any, obj: bytes, filepath: str | os.PathLike[str]) -> None:
        with _renamed_when_complete(filepath) as temporary:
            put(self, obj, temporary)

    @contextmanager
    def open_completely(path: str, mode: str) -> Iterator[IO[Any]]:
        with _renamed_when_complete(path) as temporary, open(temporary, mode) as file:
            yield file

    def saving_first(save: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(save)
        def wrapped(self: Any, *args: Any, **options: Any) -> None:
            backend, self.file_backend = self.file_backend, _Postponed(self.file_backend)
            try:
                save(self, *args, **options)
                best = getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()
                self.file_backend.finish({str(self.last_ckpt), *map(str, best)})
            finally:
                self.file_backend = backend

        return wrapped

    LocalBackend.put = put_completely
    module.open = open_completely
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(CheckpointHook, name, saving_first(getattr(CheckpointHook, name)))


@functools.cache
def write_configs_of_started_runs() -> None:
    """Let a runner write its config into the work directory once its training begins, or where none is.

    Range: every mmengine, which does so while the runner is built. Symptoms: a run that is refused, as its checkpoint
    or data do not fit, has replaced the config of the run that the work directory is of; so has every test of that run,
    by a config with the protocol of the test.
    """
    from mmengine.runner import Runner

    dump, call = Runner.dump_config, Runner.call_hook

    @functools.wraps(dump)
    def dump_config(self: Any) -> None:
        if hasattr(self, '_config_is_due'):
            dump(self)
        else:
            self._config_is_due = True

    @functools.wraps(call)
    def call_hook(self: Any, fn_name: str, **options: Any) -> None:
        call(self, fn_name, **options)
        if fn_name in ('before_train', 'before_val', 'before_test') and getattr(self, '_config_is_due', False):
            self._config_is_due = False
            if fn_name == 'before_train' or not any(name.endswith('.py') for name in os.listdir(self.work_dir)):
                dump(self)

    Runner.dump_config, Runner.call_hook = dump_config, call_hook


def download_checkpoints_by(read_address: Callable[[str, Callable[[Path], Any]], Any]) -> None:
    """Let mmengine's loaders, and so ``load_from`` and mmseg's tools, take files of addresses from our cache.

    Range: every mmengine, whose ``load_url`` is torch's. Symptom: a file is cached by its name alone, so that another
    address's is taken for it; a cut or altered one is accepted and stays.

    Args:
        read_address: See `omh_mmseg.utils.downloads.read_address`.
    """
    from mmengine.runner import checkpoint as module

    original = getattr(module.load_url, '__wrapped__', module.load_url)

    @functools.wraps(original)
    def load_url(url: str, model_dir: str | None = None, *args: Any, **options: Any) -> Any:
        # Torch's function reads what is there already, also the zipped files of old model zoos.
        return read_address(
            url, lambda path: original(url, str(path.parent), *args, **{**options, 'file_name': path.name})
        )

    module.load_url = load_url


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
    write_checkpoints_completely()
    write_configs_of_started_runs()
    separate_runs()
    keep_drop_probability_plain()
