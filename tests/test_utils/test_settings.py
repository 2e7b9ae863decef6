"""``--cfg-options``: what is typed arrives as it was meant, by the value that the config has at its key."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omh_mmseg.utils.config import read_config
from omh_mmseg.utils.config_keys import value_at
from omh_mmseg.utils.settings import Settings, Text, read_text

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FOLDER, DEMO = (str(CONFIGS / f'{name}.py') for name in ('stego_mobilenet-v2_folder', 'omh_stego_vit-t8_demo'))


def parsed(*words: str) -> dict[str, Text]:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=Settings)
    return parser.parse_args(words).cfg_options


def read(key: str, text: str, config: str = FOLDER) -> Any:
    return value_at(read_config(config, parsed('--cfg-options', f'{key}={text}')).to_dict(), key)


@pytest.mark.parametrize(
    ('text', 'present', 'value'),
    [
        # texts stay texts
        ('/x/my data', 'data', '/x/my data'), ('a,b', 'data', 'a,b'), ('2024', 'data', '2024'), ('1e3', 'x', '1e3'),
        ('[1]', 'x', '[1]'), ('true', 'x', 'true'), (' x ', 'x', ' x '), ('', 'x', ''), ("it's", 'x', "it's"),
        ('x=1', 'x', 'x=1'), ('"a b"', 'x', 'a b'), ("'None'", 'x', 'None'), ('None', 'x', None),
        # numbers and switches
        ('3', 1, 3), ('-5', 1, -5), ('1e-3', 0.1, 1e-3), ('08', 1, 8), ('0x10', 1, 16), (' 3 ', 1, 3), ('2.5', 1, 2.5),
        ('True', False, True), ('false', True, False), ('None', 1, None), ('"dynamic"', 1, 'dynamic'),
        # lists
        ('1,2,3', [0], [1, 2, 3]), ('[1, 2]', [0], [1, 2]), ('"[1,2]"', [0], [1, 2]), ('(1,2)', (0,), (1, 2)),
        ('[]', [1], []), ('3', [0, 1], 3), ('a,b', ['x'], ['a', 'b']), ('1,2', ['x'], ['1', '2']),
        ('[a b, c]', ['x'], ['a b', 'c']), ("['a,b', c]", ['x'], ['a,b', 'c']), ('None', [1], None),
        # where nothing stands
        ('a,b', None, ['a', 'b']), ('[(a,b),(c d,e)]', None, [('a', 'b'), ('c d', 'e')]), ('2024', None, 2024),
        ('a b', None, 'a b'), ("{'a': [1]}", None, {'a': [1]}), ("dict(type='X', a=dict(b=1))", None,
         {'type': 'X', 'a': {'b': 1}}), ('[dict(a=1), x]', None, [{'a': 1}, 'x']), ('[[1,2],[3]]', None, [[1, 2], [3]]),
        ('x (copy', None, 'x (copy'), ('...', None, '...'), ('"2024"', None, '2024'), ('a-b', None, 'a-b'),
    ],
)  # fmt: skip
def test_a_text_is_read_by_what_stands_there(text: str, present: Any, value: Any) -> None:
    read_value = read_text(Text(text), present)
    assert read_value == value and type(read_value) is type(value)


@pytest.mark.parametrize(
    ('text', 'annotation', 'value'),
    [
        ('2024', 'str | None', '2024'), ('a,b', 'str | Path', 'a,b'), ('2024', 'typing.Optional[str]', '2024'),
        ('2024', "<class 'str'>", '2024'), ('a,b', 'str | Sequence[str]', ['a', 'b']), ('3', 'int | str', 3),
        ('3', 'float | None', 3),
    ],
)  # fmt: skip
def test_where_nothing_stands_the_annotation_decides(text: str, annotation: str, value: Any) -> None:
    assert read_text(text, None, annotation) == value


@pytest.mark.parametrize(
    ('text', 'present', 'annotation', 'message'),
    [
        ('yes', True, '', "'yes' is not True or False"), ('three', 3, '', "'three' is not a number"),
        ('', 3, '', 'is not a number'), ('[1,2', [0], '', r'bracket \[ is not closed'),
        ('yes', None, 'bool', 'is not True or False'), ('many', None, 'int | None', 'is not a number'),
    ],
)  # fmt: skip
def test_what_is_no_number_or_list_is_refused(text: str, present: Any, annotation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_text(text, present, annotation)


@given(st.text(min_size=1).filter(lambda text: text.strip() != 'None' and text[0] not in '\'"'))
def test_any_text_arrives_where_one_stands(text: str) -> None:
    assert read_text(text, 'data/') == text


_names = st.text('abc', min_size=1, max_size=3)
_values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('ab ,[]', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(_values, min_size=1) | st.dictionaries(_names, _values))
def test_literals_of_python_arrive(value: Any) -> None:
    assert read_text(repr(value)) == value


def test_the_action() -> None:
    words = ['--cfg-options', 'a.b=1', 'c=x = y', '--cfg-options', 'a.b=2', 'd=']
    assert parsed(*words) == {'a.b': '2', 'c': 'x = y', 'd': ''}
    assert all(type(text) is Text for text in parsed(*words).values())
    assert type(pickle.loads(pickle.dumps(Text('a b')))) is Text
    for word in ('a', '=3', 'a..b=3', '.a=1'):
        with pytest.raises(SystemExit):
            parsed('--cfg-options', word)


@pytest.mark.parametrize(
    ('key', 'text', 'value'),
    [
        ('data_root', '/x/my data', '/x/my data'), ('data_root', '2024', '2024'), ('data_root', 'a,b', 'a,b'),
        ('work_dir', '2024', '2024'), ('load_from', '1,2.pth', '1,2.pth'),
        ('default_hooks.feature_cache.folder', '2024', '2024'), ('model.backbone.checkpoint', 'a,b', 'a,b'),
        ('train_dataloader.dataset.dataset.classes_file', 'my classes,1.json', 'my classes,1.json'),
        ('train_dataloader.dataset.index', '3', '3'), ('model.num_classes', '20', 20),
        ('model.data_preprocessor.mean', '1,2,3', [1, 2, 3]), ('default_hooks.feature_cache.splits', 'train,val',
         ['train', 'val']), ('default_hooks.checkpoint.save_best', '[probe/mIoU, level1/mIoU]',
         ['probe/mIoU', 'level1/mIoU']), ('model.linear_probe', 'None', None),
    ],
)  # fmt: skip
def test_through_a_config(key: str, text: str, value: Any) -> None:
    assert read(key, text) == value


def test_values_of_python_are_taken_as_they_are() -> None:
    assert read_config(FOLDER, {'data_root': '2024', 'num_classes': 20}).num_classes == 20
    assert read_config(FOLDER, {'model.num_classes': '20'}).model.num_classes == '20'


def test_several_settings_that_depend_on_each_other() -> None:
    options = {'optim_wrapper.type': Text('AmpOptimWrapper'), 'optim_wrapper.loss_scale': Text('512.')}
    assert read_config(DEMO, options).optim_wrapper.loss_scale == 512.0


def test_numbers_in_dicts_and_what_is_no_dict():
    value = read_text('dict(max_norm=inf, low=-inf, none=nan, inner=[{"a": -1}])')
    assert (value['max_norm'], value['low'], value['inner']) == (float('inf'), -float('inf'), [{'a': -1}])
    assert value['none'] != value['none']
    for text in ('dict(a=b)', '{a: 1}', 'dict(a=-b)', 'dict(a=open("x"))'):
        with pytest.raises(ValueError, match='is no dict of values'):
            read_text(text)
    assert read_text('dict(a=b)', 'a text') == 'dict(a=b)' and read_text('{x}/y') == '{x}/y'
