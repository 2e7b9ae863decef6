"""The page of all configs is what its command makes of the metafiles, which the tools of OpenMMLab can read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import omh_mmseg
from omh_mmseg.utils.metafiles import INDEX, read_models, weights_of

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = read_models()


@pytest.fixture(scope='module')
def zoo() -> ModuleType:
    path = REPOSITORY / '.dev_scripts' / 'model_zoo.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_config_has_an_entry() -> None:
    assert sorted(MODELS) == omh_mmseg.list_configs()
    assert all(entry['Config'] == f'configs/{name}.py' for name, entry in MODELS.items())


def test_page(zoo: ModuleType) -> None:
    assert zoo.PAGE.read_text() == zoo.make_page(), 'run python .dev_scripts/model_zoo.py'


@pytest.mark.parametrize('name', MODELS)
def test_figures_have_a_source(name: str) -> None:
    """Reported ones say where they were read; ours are of a page of this repository, which holds them."""
    for reported in MODELS[name].get('Reported', []):
        assert reported['Source'] and reported['Figures']
    for part in filter(None, (MODELS[name].get('Ours'), MODELS[name].get('Cost'))):
        page = (REPOSITORY / part['Source']).read_text()
        figures = part.get('Figures') or {key: part[key] for key in ('Step (ms)', 'Memory (MiB)')}
        assert all(str(figure) in page for figure in figures.values()), part


def test_weights() -> None:
    assert [name for name, entry in MODELS.items() if 'Weights' in entry] == [
        name for name in MODELS if weights_of(name)
    ]


def test_index_is_what_mim_reads() -> None:
    modelindex = pytest.importorskip('modelindex')
    index = modelindex.load(str(REPOSITORY / INDEX))
    assert {model.name for model in index.models} == set(MODELS)
    collections = {collection.name for collection in index.collections}
    assert {model.in_collection for model in index.models} == collections
