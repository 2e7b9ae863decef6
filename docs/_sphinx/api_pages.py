"""Writes the pages of the API reference: what the rooms of the package export, and modules for parts of one's own."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import omh_mmseg

MODULES = (
    'datasets.base', 'models.backbones.key_converters', 'registry', 'structures.assignment', 'structures.frozen_inputs',
    'structures.granularity', 'structures.host_step', 'structures.labels', 'structures.protocols',
    'structures.provenance',
)  # fmt: skip
"""Modules without a list of what they export, for parts of one's own."""


def exported(module: ModuleType) -> list[str]:
    """Public names of a module: those of its ``__all__``, or the classes and functions that it defines."""
    names = getattr(module, '__all__', None)
    if names is not None:
        return [one for one in names if not one.startswith('__') and not isinstance(getattr(module, one), ModuleType)]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith('_') and callable(value) and getattr(value, '__module__', '') == module.__name__
    ]


def public_modules() -> list[ModuleType]:
    """Every package that exports something, and `MODULES`."""
    found = [omh_mmseg]
    for info in pkgutil.walk_packages(omh_mmseg.__path__, 'omh_mmseg.'):
        if info.ispkg and not info.name.startswith('omh_mmseg.commands'):
            module = import_module(info.name)
            found += [module] if getattr(module, '__all__', ()) else []
    return sorted([*found, *(import_module(f'omh_mmseg.{name}') for name in MODULES)], key=lambda one: one.__name__)


def public_names() -> dict[str, list[str]]:
    """What each module exports and no module within it does."""
    modules = {module.__name__: module for module in public_modules()}
    taken: set[Any] = set()
    names: dict[str, list[str]] = {}
    for name in sorted(modules, key=lambda one: (-one.count('.'), one)):
        own = [one for one in exported(modules[name]) if key_of(modules[name], one) not in taken]
        taken |= {key_of(modules[name], one) for one in own}
        names[name] = own
    return {name: names[name] for name in modules}


def key_of(module: ModuleType, name: str) -> Any:
    """What is one thing under all its names."""
    value = getattr(module, name)
    return id(value) if callable(value) else (module.__name__, name)


def page_of(room: str, names: dict[str, list[str]]) -> str:
    """The text of a room's page."""
    lines = [room, '=' * len(room), '']
    for module, own in names.items():
        inner = [one for one in exported(import_module(module)) if one not in own]
        if module != room:
            lines += [module, '-' * len(module), '']
        members = [f'   :members: {", ".join(own)}', '   :imported-members:'] if own else []
        lines += [f'.. automodule:: {module}', *members, '']
        if inner:
            lines += [
                f'Also {", ".join(f"``{one}``" for one in inner)}, described with the modules that hold them.',
                '',
            ]
    return '\n'.join(lines)


def write_pages(folder: Path) -> None:
    """Write what has changed, so that Sphinx reads nothing else again."""
    rooms: dict[str, dict[str, list[str]]] = {}
    for module, names in public_names().items():
        rooms.setdefault('.'.join(module.split('.')[:2]), {})[module] = names
    folder.mkdir(exist_ok=True)
    pages = {f'{room}.rst': page_of(room, names) for room, names in rooms.items()}
    for old in folder.glob('*.rst'):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        if not (folder / name).is_file() or (folder / name).read_text() != text:
            (folder / name).write_text(text)
