"""Upstream breakage of reading and writing checkpoints."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from omh_mmseg.checkpoint_files import named_content, read_as_data
from omh_mmseg.switches import TRUST, is_on


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
        return module.torch.load(file, map_location=map_location, weights_only=not is_on(TRUST))

    module.CheckpointLoader.load_checkpoint = classmethod(functools.wraps(original)(load_checkpoint))
    if hasattr(module, '_safe_torch_load'):
        module._safe_torch_load = load_once


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
