"""What is scored: fields of the predictions, by name, and how their clusters come to classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omh_mmseg.choices import MATCHINGS

PROBE_FIELD, PROBE = 'pred_sem_seg', 'probe'
DEFAULT_HEADS = {
    PROBE_FIELD: PROBE,
    'pred_linear': ('linear', 'identity'),
    'pred_level1': 'level1',
}

MMSEG_METRICS = ('IoUMetric', 'CityscapesMetric')
"""They read ``pred_sem_seg`` alone."""
LEVEL = re.compile(r'pred_level(\d+)')
"""Fields of OMH's levels."""


def head_of(field: str) -> str:
    """Name of a head by the field of the data sample that has its clusters: ``probe``, ``level1``, ..."""
    return PROBE if field == PROBE_FIELD else field.removeprefix('pred_')


def field_of(head: str) -> str:
    """The field that `head_of` gives this name."""
    return PROBE_FIELD if head == PROBE else f'pred_{head}'


def scored_fields(evaluators: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> set[str] | None:
    """Fields of the predictions that the evaluators of a config read; None where one of them is not known."""
    fields: set[str] = set()
    for evaluator in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
        name = str(evaluator.get('type')).rpartition('.')[2]
        if name == 'UnsupervisedIoUMetric':
            fields |= set(evaluator.get('heads') or DEFAULT_HEADS)
        elif name in MMSEG_METRICS:
            fields.add('pred_sem_seg')
        else:
            return None
    return fields


def checked_heads(heads: Mapping[str, str | Sequence[str]] | None, matching: str) -> dict[str, tuple[str, str]]:
    """Name and matching of each field.

    Args:
        heads: Field -> name, or (name, matching); None for `DEFAULT_HEADS`.
        matching: Of those that do not say.

    Raises:
        ValueError: An unknown matching, no heads, or two of one name.
    """
    if matching not in MATCHINGS:
        raise ValueError(f'matching must be one of {MATCHINGS}; got {matching!r}')
    checked: dict[str, tuple[str, str]] = {}
    for field, head in (DEFAULT_HEADS if heads is None else heads).items():
        pair = (head, matching) if isinstance(head, str) else tuple(head)
        if len(pair) != 2 or pair[1] not in MATCHINGS:
            raise ValueError(f'heads[{field!r}] is {head!r}; it must be a name or a pair (name, one of {MATCHINGS})')
        checked[field] = (str(pair[0]), str(pair[1]))
    names = [name for name, _ in checked.values()]
    if not names or len(set(names)) != len(names):
        raise ValueError(f'heads must have at least one entry and different names, got {names}')
    return checked
