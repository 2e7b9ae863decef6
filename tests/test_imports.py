"""Imports run one way: down the rooms that ``pyproject.toml`` lists, and in no circle of files.

``make lint`` asks the same of import-linter. This test needs nothing but the tests' requirements, names the line, and
also counts the ``__init__`` of a package as a file.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest requires there

REPOSITORY = Path(__file__).resolve().parents[1]


class Import(NamedTuple):
    """An import of a module of the package."""

    importer: str
    imported: str
    place: str


class Room(NamedTuple):
    """A layer's place in its contract, counted from the top, and whether its siblings are kept apart."""

    rank: int
    independent: bool


def module_name(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports_of(file: Path, root: Path, modules: set[str]) -> Iterator[Import]:
    """Imports at module level, inside functions and for type checkers alike."""
    importer = module_name(file, root)
    package = importer if file.name == '__init__.py' else importer.rpartition('.')[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name('.' * node.level + (node.module or ''), package)
            names = [f'{base}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            # What is no module is a name that the module before the dot defines.
            imported = name if name in modules else name.rpartition('.')[0]
            if imported in modules:
                yield Import(importer, imported, f'{file.relative_to(root)}:{node.lineno}')


def read_imports(root: Path, package: str) -> list[Import]:
    files = sorted(file for file in (root / package).rglob('*.py') if '.mim' not in file.parts)
    modules = {module_name(file, root) for file in files}
    return [item for file in files for item in imports_of(file, root, modules)]


def read_rooms() -> dict[str, dict[str, Room]]:
    """The rooms of each container, as import-linter's contracts list them."""
    settings = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())['tool']['importlinter']
    return {
        container: {
            f'{container}.{name}': Room(rank, '|' in layer)
            for rank, layer in enumerate(contract['layers'])
            for name in re.findall(r'\w+', layer)
        }
        for contract in settings['contracts'] if contract['type'] == 'layers'
        for container in contract['containers']
    }


def runs_up(item: Import, container: str, rooms: dict[str, Room]) -> bool:
    depth = container.count('.') + 2
    source, target = ('.'.join(name.split('.')[:depth]) for name in (item.importer, item.imported))
    if source == target or source not in rooms or target not in rooms:
        return False
    above = rooms[target].rank < rooms[source].rank
    return above or (rooms[target].rank == rooms[source].rank and rooms[source].independent)


def find_circle(imports: list[Import]) -> list[str]:
    """One circle of files, each importing the next; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for item in imports:
        graph.setdefault(item.importer, set()).add(item.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


@pytest.fixture(scope='module')
def imports() -> list[Import]:
    return read_imports(REPOSITORY, 'omh_mmseg')


@pytest.mark.parametrize('container', sorted(read_rooms()))
def test_no_import_runs_up(imports: list[Import], container: str) -> None:
    rooms = read_rooms()[container]
    upwards = [f'{item.place} imports {item.imported}' for item in imports if runs_up(item, container, rooms)]
    assert not upwards, '\n'.join(upwards)


@pytest.mark.parametrize('container', sorted(read_rooms()))
def test_every_room_is_listed(container: str) -> None:
    folder = REPOSITORY.joinpath(*container.split('.'))
    rooms = {f'{container}.{entry.stem}' for entry in folder.iterdir()
             if entry.suffix == '.py' or (entry / '__init__.py').is_file()}
    assert rooms - {f'{container}.__init__'} == set(read_rooms()[container])


def test_no_circle_of_files(imports: list[Import]) -> None:
    assert ' -> '.join(find_circle(imports)) == ''


@pytest.fixture
def toy(tmp_path: Path) -> list[Import]:
    """A package whose ``low.inner`` imports ``high`` in a function, and whose two files of ``high`` form a circle."""
    for name, text in {
        '__init__.py': '', 'high/__init__.py': 'from toy.high.one import A',
        'high/one.py': 'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .two import B',
        'high/two.py': 'import toy.high.one',
        'low/__init__.py': '', 'low/inner.py': 'import math\n\n\ndef late():\n    from toy import high',
    }.items():
        (tmp_path / 'toy' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'toy' / name).write_text(text)
    return read_imports(tmp_path, 'toy')


def test_imports_that_are_seen(toy: list[Import]) -> None:
    assert {(item.importer, item.imported) for item in toy} == {
        ('toy.high', 'toy.high.one'), ('toy.high.one', 'toy.high.two'), ('toy.high.two', 'toy.high.one'),
        ('toy.low.inner', 'toy.high'),
    }
    circle = find_circle(toy)
    assert circle[0] == circle[-1] and set(circle) == {'toy.high.one', 'toy.high.two'}


@pytest.mark.parametrize('independent, ranks, places', [
    (False, (0, 1), ['toy/low/inner.py:5']),
    (False, (1, 0), []),
    (False, (0, 0), []),
    (True, (0, 0), ['toy/low/inner.py:5']),
])
def test_direction(toy: list[Import], independent: bool, ranks: tuple[int, int], places: list[str]) -> None:
    rooms = {f'toy.{name}': Room(rank, independent) for name, rank in zip(('high', 'low'), ranks)}
    assert [item.place for item in toy if runs_up(item, 'toy', rooms)] == places
