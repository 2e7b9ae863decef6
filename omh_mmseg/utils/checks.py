"""Types and ranges of options, checked where a part is built; needs the standard library alone."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

P = ParamSpec('P')
R = TypeVar('R')

MAX_SIZE = 16384
SIZE = f'[1, {MAX_SIZE}]'
"""Of what memory is taken for: clusters, channels, sides of images. Two such sizes make a matrix of at most 2 GiB."""
COUNT = '[1, inf)'
STEPS = '[0, inf)'
SHARE = '[0, 1]'
WEIGHT = '[0, inf)'
POSITIVE = '(0, inf)'
FINITE = '(-inf, inf)'

_INTERVAL = re.compile(r'([\[(])\s*(\S+),\s*(\S+?)\s*([\])])')
_GROUP = re.compile(r'(?:Sequence|tuple|list|Mapping|dict)\[(?:str, )?(int|float)\b')
KNOWN = {'None', 'str', 'int', 'float', 'bool'}
_NOUNS = {'int': 'a whole number', 'float': 'a number', 'bool': 'True or False'}


@dataclass(frozen=True)
class Option:
    """What an option accepts, by its annotation and its range.

    Attributes:
        kind: ``'int'``, ``'float'`` or ``'bool'``.
        interval: Of a number, as mathematics writes it: ``'[0, 1)'``.
        single: Whether one value is accepted.
        several: Whether a list of values, or a mapping to values, is accepted.
        others: All types by name. What is neither text, number nor None passes where
            there are others than those.
    """

    kind: str
    interval: str
    single: bool
    several: bool
    others: tuple[str, ...]

    @classmethod
    def of(cls, annotation: str, interval: str | None) -> Option | None:
        """What an annotation says; None where it names neither numbers nor switches."""
        words = re.sub(r'\[[^\]]*\]', '', annotation).replace(' ', '').split('|')
        group = _GROUP.search(annotation)
        kinds = [word for word in words if word in _NOUNS] + ([group[1]] if group else [])
        if not kinds:
            return None
        kind = 'float' if 'float' in kinds else kinds[0]
        return cls(kind, interval or FINITE, any(word in _NOUNS for word in words), group is not None, tuple(words))

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError, naming the option and what it accepts, if a value is of another type or out of range."""
        if (value is None and 'None' in self.others) or (isinstance(value, str) and 'str' in self.others):
            return
        if not self.several and set(self.others) - KNOWN and not isinstance(value, str | Real | None):
            return  # of another type that the option takes
        if self.several and isinstance(value, (Mapping, Sequence)) and not isinstance(value, str):
            each: Any = value.values() if isinstance(value, Mapping) else value
            accepted = all(map(self._accepts, each))
        else:
            accepted = self.single and self._accepts(value)
        if not accepted:
            raise ValueError(f'{name} must be {self}; got {value!r}')

    def __str__(self) -> str:
        text = _NOUNS[self.kind] if self.single else f'several of these: {_NOUNS[self.kind]}'
        text += ' or several' if self.single and self.several else ''
        text += '' if self.kind == 'bool' else f' in {self.interval}'
        others = [] if self.several else [word for word in self.others if word not in KNOWN]
        return ' or '.join([text, *others, *(['None'] if 'None' in self.others else [])])

    def _accepts(self, value: Any) -> bool:
        if self.kind == 'bool' or isinstance(value, bool):
            return self.kind == 'bool' and isinstance(value, bool)
        return isinstance(value, Integral if self.kind == 'int' else Real) and _inside(self.interval, value)


def ranges(**intervals: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function, usually a constructor, refuse numbers and switches of a wrong type or out of range.

    Which arguments are whole numbers, numbers or switches is what their annotations say; with ``| None`` None passes,
    and of ``Sequence[float]`` or ``Mapping[str, int]`` each value is checked. True is no number.

    Args:
        **intervals: Of each number, as mathematics writes it: ``momentum='[0, 1)'``. NaN is in none.

    Returns:
        A decorator. The decorated function keeps the table as its attribute ``ranges``; called with a value that is not
        accepted, it raises ValueError with the option's name, what it accepts, and the value.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature, constructs = inspect.signature(function), function.__name__ == '__init__'
        annotations = {name: str(parameter.annotation) for name, parameter in signature.parameters.items()}
        options = options_of(annotations, intervals)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError:
                given = {}  # Python's own message of the call below names the function
            for name, value in given.items():
                if name in options:
                    owner = type(args[0]).__name__ if constructs and args else function.__qualname__
                    options[name].check(f'{owner}: {name}', value)
            return function(*args, **kwargs)

        checked.ranges = intervals  # type: ignore[attr-defined]
        return checked

    return decorate


def options_of(annotations: Mapping[str, str], intervals: Mapping[str, str]) -> dict[str, Option]:
    """What each of the annotated numbers and switches accepts, by its name.

    Raises:
        TypeError: There is an interval of something else.
    """
    found = {name: Option.of(text, intervals.get(name)) for name, text in annotations.items()}
    options = {name: option for name, option in found.items() if option is not None}
    idle = [name for name in intervals if name not in options or options[name].kind == 'bool']
    if idle:
        raise TypeError(f'{", ".join(idle)}: no such numbers')
    return options


def _inside(interval: str, value: Any) -> bool:
    match = _INTERVAL.fullmatch(interval)
    if match is None:
        raise TypeError(f'{interval!r} is no interval, such as [0, 1)')
    low, high = float(match[2]), float(match[3])
    above = value >= low if match[1] == '[' else value > low
    below = value <= high if match[4] == ']' else value < high
    return bool(above and below) and not math.isnan(value)
