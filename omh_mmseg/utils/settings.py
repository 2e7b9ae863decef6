"""Settings of the command line: texts ``KEY=VALUE``, which are read by what the config has at their keys."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any

NUMBERS = {'bool', 'int', 'float'}
TEXTS = {'str', 'Path', 'PathLike', 'os', 'pathlib'}
_BRACKETS = {'(': ')', '[': ']', '{': '}'}
_QUOTES = '\'"'
_DICT = re.compile(r'dict\(.*\)|\{.*\}', re.DOTALL)


class Text(str):
    """The value of a setting as it was typed; `read_text` gives what it means."""


class Settings(argparse.Action):
    """``--cfg-options KEY=VALUE ...``: a dict of `Text`, to which further uses of the option add."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Take the texts."""
        given = dict(getattr(namespace, self.dest, None) or {})
        for word in values:
            key, equals, text = word.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(f'{"/".join(self.option_strings)} takes KEY=VALUE; got {word!r}')
            given[key] = Text(text)
        setattr(namespace, self.dest, given)


def read_text(text: str, present: Any = None, annotation: str = '') -> Any:
    """The value that a text means where another one stands now.

    A text stays a text where one stands, or is all that the option takes: ``2024``, ``a,b`` and spaces are then part of
    a path. Elsewhere it is a Python literal, with ``dict(...)`` for a dict, ``true`` and ``false`` of any case, and
    lists as mmengine has them: ``1,2,3``, ``[a, b]``, ``[(a, b), c]``. ``None`` is None everywhere, and what stands in
    quotes is a text, or where a list stands the list in it.

    Args:
        text: As typed, without the shell's own quotes.
        present: What stands in the config; None where nothing does.
        annotation: Of the option, which decides where nothing stands.

    Raises:
        ValueError: A number or a switch stands there and the text is neither, or its brackets do not match.
    """
    text = str(text)  # a `Text` would reach checkpoints, from which only plain values are read
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES else None
    if text.strip() == 'None':
        return None
    if isinstance(present, (list, tuple)):
        texts = bool(present) and all(isinstance(one, str) for one in present)
        value = _read(text if inner is None else inner, texts)
        return text if texts and not isinstance(value, (list, tuple, dict)) else value
    if inner is not None and text[0] not in inner:
        return inner
    types = set(re.findall(r'[A-Za-z_]+', annotation)) - {'None', 'NoneType', 'Optional', 'Union', 'typing', 'class'}
    if types <= TEXTS and (types or isinstance(present, str)) and not isinstance(present, (bool, int, float, dict)):
        return text
    value = _read(text)
    numeric = isinstance(present, (bool, int, float)) or (present is None and types and types <= NUMBERS)
    if numeric and isinstance(value, str):
        kind = 'True or False' if isinstance(present, bool) or types == {'bool'} else 'a number'
        raise ValueError(f'{text!r} is not {kind}; put a text that is meant in quotes')
    return value


def _read(text: str, texts: bool = False) -> Any:
    """A literal, a list without quotes, or the text itself.

    Args:
        text: As typed.
        texts: Whether the elements of a list are texts, whatever they look like.
    """
    bare = text.strip()
    if bare.lower() in ('true', 'false'):
        return bare.lower() == 'true'
    try:
        parts = _parts(bare)
    except ValueError:
        if bare[0] in _BRACKETS:
            raise
        return text
    if len(parts) > 1:
        return [_element(part, texts) for part in parts if part.strip()]
    if bare[:1] in _BRACKETS and _closing(bare) == len(bare) - 1 and bare[0] != '{':
        elements = [_element(part, texts) for part in _parts(bare[1:-1]) if part.strip()]
        return tuple(elements) if bare[0] == '(' else elements
    for read in (_literal, int, float):  # mmengine reads 08, inf and nan as numbers as well
        try:
            return read(bare)
        except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
            continue
    if _DICT.fullmatch(bare):
        raise ValueError(f'{text!r} is no dict of values; texts in it are in quotes: dict(key=1, other="text")')
    return text


def _literal(text: str) -> Any:
    """A number, text, list or dict; anything else raises."""
    value = ast.literal_eval(_as_dict(ast.parse(text, mode='eval').body))
    if not isinstance(value, (bool, int, float, str, list, tuple, dict)):
        raise TypeError(f'{text!r} is no value of a config')
    return value


def _element(text: str, texts: bool) -> Any:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        return text[1:-1]
    if text == 'None':
        return None
    return text if texts and text[:1] not in _BRACKETS else _read(text, texts)


def _as_dict(node: ast.expr) -> ast.expr:
    """The same expression with ``dict(a=1)`` as ``{'a': 1}`` and ``inf`` and ``nan`` as numbers, at any depth."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [_as_dict(keyword.value) for keyword in node.keywords])
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return ast.Constant(float(node.id))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Name):
        return ast.Constant(-float(node.operand.id))
    if isinstance(node, ast.Dict):
        return ast.Dict(node.keys, [_as_dict(value) for value in node.values])
    if isinstance(node, (ast.List, ast.Tuple)):
        return type(node)([_as_dict(value) for value in node.elts], ast.Load())
    return node


def _parts(text: str) -> list[str]:
    """The text between commas that stand in no brackets and no quotes."""
    parts, start, place = [], 0, 0
    while place < len(text):
        if text[place] == ',':
            parts.append(text[start:place])
            start = place + 1
        place = _closing(text, place) + 1
    return [*parts, text[start:]]


def _closing(text: str, start: int = 0) -> int:
    """Place of the bracket or quote that closes the one at a place; the place itself where none opens there.

    Raises:
        ValueError: A bracket is not closed.
    """
    opening = text[start : start + 1]
    if opening and opening in _QUOTES:
        end = text.find(opening, start + 1)
        return start if end < 0 else end
    if opening not in _BRACKETS or not opening:
        return start
    place = start + 1
    while place < len(text):
        if text[place] == _BRACKETS[opening]:
            return place
        place = _closing(text, place) + 1
    raise ValueError(f'the bracket {opening} is not closed in {text!r}')
