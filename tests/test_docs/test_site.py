"""What the docs site shows of the package, and how it finds broken links; the site itself is built by ``make docs``."""

from __future__ import annotations

import importlib.util
import sys
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SPHINX = REPOSITORY / 'docs' / '_sphinx'


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'docs_{name}', SPHINX / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_public_names_have_docstrings() -> None:
    names = load('api_pages').public_names()
    assert sum(map(len, names.values())) > 120
    assert {'omh_mmseg.apis', 'omh_mmseg.transport', 'omh_mmseg.models.segmentors'} <= names.keys()
    without = [
        f'{module}.{name}'
        for module, listed in names.items()
        for name in listed
        if callable(value := getattr(import_module(module), name)) and not value.__doc__
    ]
    assert not without


def test_pages_have_a_place() -> None:
    """A page is in a toctree of the front page, by its name or by a pattern."""
    front = (REPOSITORY / 'docs' / 'index.md').read_text()
    for page in (REPOSITORY / 'docs').glob('*.md'):
        assert page.stem == 'index' or any(fnmatch(page.stem, entry) for entry in front.split('\n') if entry), page.name


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / 'b.html').write_text('<h1 id="there">b</h1>')
    (tmp_path / 'a.html').write_text(
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><img src="gone.png"><a href="https://e.org/">3</a>'
        '<a href="#here">4</a><p id="here">'
    )
    broken, external = load('check_links').check_links(tmp_path)
    assert broken == ['a.html: b.html#gone leads to no anchor', 'a.html: gone.png leads to no file']
    assert external == {'https://e.org/'}


def test_links_that_leave_the_pages_lead_to_the_repository() -> None:
    pytest.importorskip('docutils')
    rewrite = load('github_pages').rewrite_links
    page = REPOSITORY / 'docs' / 'methods' / 'omh.md'
    text = '[a](stego.md#3A.5) [b](../../configs) [c](../hosts.md) `[d](../../README.md)` [e](../../README.md#x)'
    there = 'https://github.com/omh-mmseg/omh_mmseg'
    assert rewrite(page, text) == (
        f'[a](stego.md#3A.5) [b]({there}/tree/main/configs) [c](../hosts.md) `[d](../../README.md)` '
        f'[e]({there}/blob/main/README.md#x)'
    )
