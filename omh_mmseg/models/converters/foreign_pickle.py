"""Checkpoints that pickle objects of other packages, read without those packages and without running their code."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from omh_mmseg.utils.text import first_few

# All that is called while a file is read; every other name becomes a ForeignObject.
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch._utils', '_rebuild_parameter'): torch._utils._rebuild_parameter,
}
PICKLE_START = b'\x80'
STANDARD = ('builtins.', 'collections.', 'typing.')
LISTED_CLASSES = 5
LONGEST_REASON = 300


class ForeignObject:
    """Stands for an object of any class and keeps what the file says of it, without doing anything.

    Attributes:
        kind: Module and name of the class or function that the file names.
        arguments: What it would have been called with.
        state: Its attributes.
        entries: Key-value pairs, of a mapping.
        items: Elements, of a sequence.
    """

    kind = ''

    def __new__(cls, *_arguments: Any, **_options: Any) -> ForeignObject:
        """Make an object with nothing in it but the arguments."""
        made = super().__new__(cls)
        made.arguments, made.state, made.entries, made.items = _arguments, None, {}, []
        return made

    arguments: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]
    items: list[Any]

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, item: Any) -> None:
        """Take the next element of a sequence."""
        self.items.append(item)


class InertUnpickler(pickle.Unpickler):
    """Rebuilds tensors and plain containers; classes and functions of any other kind become `ForeignObject`."""

    def find_class(self, module: str, name: str) -> Any:
        """The allowed function of that name, else a class that stands for it."""
        allowed = ALLOWED.get((module, name))
        return allowed if allowed is not None else type(name, (ForeignObject,), dict(kind=f'{module}.{name}'))


def _pickle_module() -> ModuleType:
    """What ``torch.load`` wants for ``pickle_module``."""
    module = ModuleType('inert_pickle')
    options = dict(Unpickler=InertUnpickler, load=lambda file, **options: InertUnpickler(file, **options).load())
    module.__dict__.update(options)
    return module


def read_foreign_checkpoint(path: str | Path, trust: bool = False) -> Any:
    """Read a PyTorch file that may hold more than tensors and plain containers.

    Args:
        path: The file.
        trust: Read a file that names classes or functions of other packages too. They need not be installed: none is
            imported or called, and `ForeignObject` takes their place. What remains is the unpickling itself, so this
            is for files whose source is known.

    Returns:
        The content, with tensors on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no PyTorch file, or names classes or functions and is not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path.absolute()}.')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        with path.open('rb') as file:
            is_pytorch = zipfile.is_zipfile(path) or file.read(1) == PICKLE_START
        if not is_pytorch:
            raise ValueError(_unreadable(path, error)) from error
        if not trust:
            raise ValueError(
                f'{path} holds more than tensors: {_named_classes(path)}. Pickled objects can run code when they are '
                'read, so this is refused by default. If you trust where the file comes from, allow it with --trust '
                '(trust=True); the classes are then replaced by inert placeholders, and only tensors are rebuilt.'
            ) from error
    try:
        return torch.load(path, map_location='cpu', weights_only=False, pickle_module=_pickle_module())
    except Exception as error:
        raise ValueError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    reason = ' '.join(str(error).split())[:LONGEST_REASON]
    return (
        f'{path} is not a readable PyTorch checkpoint ({type(error).__name__}: {reason}). An '
        'incomplete download is the usual reason: compare its size with that of the source.'
    )


def _named_classes(path: Path) -> str:
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        names = []
    names = [name for name in names if not name.startswith(STANDARD)] or names
    return f'objects of {first_few(names, LISTED_CLASSES) or "other packages"}'


def plain_settings(value: Any) -> Any:
    """Settings as plain dicts, lists, numbers and text.

    OmegaConf's containers and nodes keep their values in the attributes ``_content`` and ``_val``, and Lightning's
    attribute dicts are mappings; other objects are named by their class.
    """
    if isinstance(value, ForeignObject):
        if isinstance(value.state, dict):
            for attribute in ('_content', '_val'):
                if attribute in value.state:
                    return plain_settings(value.state[attribute])
        if value.entries:
            return plain_settings(value.entries)
        if value.items:
            return plain_settings(value.items)
        return f'<{value.kind}>'
    if isinstance(value, dict):
        return {str(key): plain_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain_settings(item) for item in value]
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() == 1 else f'<tensor {tuple(value.shape)}>'
    return value if isinstance(value, bool | int | float | str) or value is None else f'<{value}>'
