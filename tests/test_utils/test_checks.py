"""Every number and switch of every registered part is refused by name where its type or range is wrong."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import omh_mmseg  # noqa: F401
from omh_mmseg import registry
from omh_mmseg.apis import SegmentationInferencer
from omh_mmseg.models.data_preprocessor import ViewsDataPreprocessor
from omh_mmseg.models.omh.level_sizes import expand_levels
from omh_mmseg.models.prediction.crf import DenseCRF
from omh_mmseg.models.prediction.options import RANGES, PredictionOptions
from omh_mmseg.models.utils.photometric_view import PhotometricView
from omh_mmseg.utils.checks import Option, options_of, ranges

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, registry.PublishedRegistry)]
PARTS = sorted(
    {part for one in REGISTRIES for part in one.module_dict.values() if part.__module__.startswith('omh_mmseg')}
    | {DenseCRF, PhotometricView, SegmentationInferencer},
    key=lambda part: part.__name__,
)


def constructors(part: type) -> Iterator[Any]:
    """Constructors of ours that a part's arguments go through."""
    for base in part.__mro__:
        if base.__module__.startswith('omh_mmseg') and '__init__' in vars(base):
            yield vars(base)['__init__']


def annotations(function: Any) -> dict[str, str]:
    return {name: str(one.annotation) for name, one in inspect.signature(function).parameters.items()}


CASES = [
    (constructor, name, option)
    for constructor in dict.fromkeys(one for part in PARTS for one in constructors(part))
    for name, option in options_of(annotations(constructor), getattr(constructor, 'ranges', {})).items()
    if option.kind == 'bool' or name in getattr(constructor, 'ranges', {})
]


def test_there_are_parts() -> None:
    assert len(PARTS) > 45 and len(CASES) > 110


@pytest.mark.parametrize('part', PARTS, ids=lambda part: part.__name__)
def test_every_number_of_a_part_is_in_its_table(part: type) -> None:
    table = {name for constructor in constructors(part) for name in getattr(constructor, 'ranges', {})}
    for constructor in constructors(part):
        numbers = options_of(annotations(constructor), {})
        assert {name for name, option in numbers.items() if option.kind != 'bool'} <= table, constructor.__qualname__
        assert hasattr(constructor, 'ranges') or all(name in table for name in numbers), constructor.__qualname__


def bounds(interval: str) -> tuple[float, float, bool, bool]:
    low, high = interval[1:-1].split(',')
    return float(low), float(high), interval[0] == '[', interval[-1] == ']'


def wrong_values(option: Option) -> list[Any]:
    """Values of wrong types, and just outside the range."""
    if option.kind == 'bool':
        return [1, 0.0, 'no'] + [None] * ('None' not in option.others)
    low, high, closed_low, closed_high = bounds(option.interval)
    wrong: list[Any] = [math.nan, math.inf, -math.inf, True]
    wrong += [] if 'None' in option.others else [None]
    wrong += [] if 'str' in option.others else ['3', '']
    wrong += [] if option.several else [[3], (3, 3), {}, 1j, object()]
    if option.kind == 'int':
        wrong += [2.5, 3.0]
    step = 1 if option.kind == 'int' else 1e-6
    if math.isfinite(low):
        wrong.append(type(step)(low) - step if closed_low else type(step)(low))
    if math.isfinite(high):
        wrong.append(type(step)(high) + step if closed_high else type(step)(high))
        wrong += [10**9] * (high < 10**9)
    return wrong


def right_value(option: Option) -> Any:
    low, high, *_ = bounds(option.interval)
    value = (max(low, -100) + min(high, 100)) / 2
    value = round(value) if option.kind == 'int' else value
    return value if option.single else [value]


def called_with(constructor: Any, name: str, value: Any) -> None:
    """Call a constructor with one argument, right numbers where they must be given, and None for what else must."""
    options = options_of(annotations(constructor), getattr(constructor, 'ranges', {}))
    parameters = inspect.signature(constructor).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    given = {key: right_value(options[key]) if key in options else None for key in needed}
    constructor(**given | {name: value})


@pytest.mark.parametrize(
    ('constructor', 'name', 'option'), CASES, ids=[f'{one.__qualname__.split(".")[0]}.{name}' for one, name, _ in CASES]
)
def test_wrong_types_and_ranges_are_refused_by_name(constructor: Any, name: str, option: Option) -> None:
    wrong = wrong_values(option)
    if option.several:
        wrong += [[value] for value in wrong] if option.kind != 'bool' else []
    for value in wrong:
        with pytest.raises(ValueError) as caught:
            called_with(constructor, name, value)
        text = str(caught.value)
        assert f': {name} must be ' in text and repr(value) in text, (value, text)
        assert option.kind == 'bool' or option.interval in text


@pytest.mark.parametrize('name', RANGES)
def test_prediction_options_are_checked_as_well(name: str) -> None:
    option = options_of(PredictionOptions.__annotations__ | dict(PART_DEFAULTS=''), RANGES)[name]
    for value in wrong_values(option):
        with pytest.raises(ValueError, match=rf'test_cfg\.{name} must be'):
            PredictionOptions.from_test_cfg({name: value}, 8)
    with pytest.raises(ValueError, match='test_cfg.flip must be True or False'):
        PredictionOptions.from_test_cfg(dict(flip='no'), 8)


def test_paddings_of_tests_are_checked() -> None:
    for padding in (dict(size_divisor=0), dict(size_divisor=2.5), dict(size=(10**6, 8))):
        with pytest.raises(ValueError, match='data_preprocessor.test_cfg.size'):
            ViewsDataPreprocessor(test_cfg=padding)
    with pytest.raises(ValueError, match='data_preprocessor.test_cfg has no size_divisr'):
        ViewsDataPreprocessor(test_cfg=dict(size_divisr=8))


def test_levels_grow_or_are_refused() -> None:
    assert expand_levels(6, 3, 1.2) == [6, 7, 8] and expand_levels(6, 3, 1.0) == [6, 6, 6]
    with pytest.raises(ValueError, match='expansion=1.01 does not grow a level of 6 clusters.*at least 1.17'):
        expand_levels(6, 3, 1.01)
    with pytest.raises(ValueError, match='makes level 5 .* clusters; at most 16384'):
        expand_levels(27, 8, 8.0)


def mixed(crf: bool | dict[str, Any] | None = None) -> Any:
    return crf


def test_the_decorator() -> None:
    @ranges(share='[0, 1]', sizes='[1, 9]', steps='(0, inf)')
    def part(
        share: float, sizes: int | tuple[int, int] = 3, steps: int | None = None, switch: bool = False,
        counts: str | None = None,
    ) -> float:  # fmt: skip
        return share

    assert part(1, (1, 2), None, True, '3') == 1 and part(np.float32(0.5), sizes=np.int64(9)) == 0.5
    with pytest.raises(ValueError, match=r'part: sizes must be a whole number or several in \[1, 9\]; got \[3, True\]'):
        part(0, [3, True])
    with pytest.raises(ValueError, match='steps must be a whole number in .* or None; got inf'):
        part(0, steps=math.inf)
    with pytest.raises(ValueError, match="switch must be True or False; got 'no'"):
        part(0, switch='no')
    assert ranges()(mixed)(crf={}) == {}
    with pytest.raises(ValueError, match="crf must be True or False or dict or None; got 'no'"):
        ranges()(mixed)('no')
    with pytest.raises(TypeError, match="unexpected keyword argument 'shares'"):
        part(shares=1)
    with pytest.raises(TypeError, match='absent: no such numbers'):
        ranges(absent='[0, 1]')(part)
