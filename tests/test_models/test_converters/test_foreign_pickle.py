"""Objects of packages that are not there, and of harmful ones, are read without being made."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType

import pytest
import torch

from omh_mmseg.models.converters.foreign_pickle import ForeignObject, plain_settings, read_foreign_checkpoint


@pytest.fixture
def absent_package(monkeypatch) -> dict[str, type]:
    """Classes that pickle under ``absentconf.nodes``, a module that is gone when the test reads them."""

    class Node:
        def __init__(self, value: object, parent: object) -> None:
            self._val, self._parent = value, parent

    class DictConfig:
        def __init__(self, values: dict) -> None:
            self._metadata = defaultdict(dict, flags=None)
            self._content = {
                key: DictConfig(value) if isinstance(value, dict) else Node(value, self)
                for key, value in values.items()
            }

    class ListConfig:
        def __init__(self, values: list) -> None:
            self._content = [Node(value, self) for value in values]

    class AttributeDict(dict):
        pass

    class Track(list):
        pass

    module = ModuleType('absentconf.nodes')
    classes = {made.__name__: made for made in (Node, DictConfig, ListConfig, AttributeDict, Track)}
    for name, made in classes.items():
        made.__module__, made.__qualname__ = module.__name__, name
        setattr(module, name, made)
    monkeypatch.setitem(sys.modules, 'absentconf', ModuleType('absentconf'))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return classes


@pytest.fixture
def write(tmp_path, absent_package, monkeypatch):
    """Save an object, then make the package of its classes unknown."""

    def save(content: object, **options) -> Path:
        path = tmp_path / 'in.ckpt'
        torch.save(content, path, **options)
        for name in ('absentconf.nodes', 'absentconf'):
            monkeypatch.delitem(sys.modules, name)
        return path

    return save


def content(classes: dict[str, type]) -> dict:
    cfg = classes['DictConfig'](dict(dim=90, name='a', rate=5e-4, none=None, on=True, group=dict(inner=3)))
    return dict(
        state_dict=OrderedDict(weight=torch.arange(6.0).reshape(2, 3), half=torch.ones(2).half()),
        hyper_parameters=classes['AttributeDict'](n_classes=27, cfg=cfg, crops=classes['ListConfig']([1, 2])),
        callbacks={classes['Node']: dict(best=torch.ones(1))},
        track=classes['Track']([1, 2]),
        parameter=torch.nn.Parameter(torch.ones(3)),
        when=Path('x'),
    )


@pytest.mark.parametrize('zipped', [True, False])
def test_objects_become_inert(absent_package, write, zipped):
    path = write(content(absent_package), _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r'in.ckpt holds more than tensors.*refused by default.*--trust \(trust'):
        read_foreign_checkpoint(path)
    found = read_foreign_checkpoint(path, trust=True)
    assert torch.equal(found['state_dict']['weight'], torch.arange(6.0).reshape(2, 3))
    assert found['state_dict']['half'].dtype == torch.half
    assert torch.equal(found['parameter'].detach(), torch.ones(3))
    assert 'absentconf' not in sys.modules
    assert isinstance(found['hyper_parameters'], ForeignObject)
    assert type(found['hyper_parameters']).kind == 'absentconf.nodes.AttributeDict'
    assert plain_settings(found['hyper_parameters']) == dict(
        n_classes=27, cfg=dict(dim=90, name='a', rate=5e-4, none=None, on=True, group=dict(inner=3)), crops=[1, 2]
    )
    assert plain_settings(found['track']) == [1, 2]
    assert plain_settings(found['when']).startswith('<pathlib')


def test_refusal_names_the_classes(absent_package, write):
    with pytest.raises(ValueError, match='objects of absentconf.nodes.AttributeDict, absentconf.nodes.Dict.*more'):
        read_foreign_checkpoint(write(content(absent_package)))


def test_plain_files_need_no_trust(write):
    path = write(dict(state_dict=dict(a=torch.ones(2)), epoch=1))
    assert read_foreign_checkpoint(path)['epoch'] == 1


class Harmful:
    """Runs a call when it is unpickled."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize('zipped', [True, False])
def test_harmful_files_do_nothing(tmp_path, trust, zipped):
    made = tmp_path / 'made'
    harm = [
        Harmful(os.mkdir, str(made)),
        Harmful(eval, f'__import__("os").mkdir({str(made)!r})'),
        Harmful(getattr, Path, 'mkdir'),
        Harmful(torch.load, str(tmp_path / 'other')),
    ]
    whole = dict(state_dict=dict(a=torch.ones(2)), harm=harm)
    torch.save(whole, tmp_path / 'in.ckpt', _use_new_zipfile_serialization=zipped)
    if trust:
        found = read_foreign_checkpoint(tmp_path / 'in.ckpt', trust=True)
        assert torch.equal(found['state_dict']['a'], torch.ones(2))
        assert all(isinstance(item, ForeignObject) for item in found['harm'])
        assert found['harm'][0].arguments == (str(made),)
    else:
        with pytest.raises(ValueError, match='refused by default'):
            read_foreign_checkpoint(tmp_path / 'in.ckpt')
    assert not made.exists()


def test_no_file_and_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match='There is no checkpoint .*absent.ckpt'):
        read_foreign_checkpoint(tmp_path / 'absent.ckpt', trust=True)
    path = tmp_path / 'page.ckpt'
    path.write_bytes(b'<html>404</html>')
    for trust in (False, True):
        with pytest.raises(ValueError, match='page.ckpt is not a readable PyTorch checkpoint .*incomplete download'):
            read_foreign_checkpoint(path, trust)


@pytest.mark.parametrize('zipped', [True, False])
def test_truncated_download(tmp_path, zipped):
    path = tmp_path / 'in.ckpt'
    torch.save(dict(a=torch.ones(1000), b=Path('x')), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match='in.ckpt is not a readable PyTorch checkpoint .*incomplete download'):
        read_foreign_checkpoint(path, trust=True)
