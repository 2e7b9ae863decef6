"""What a run was trained with, as plain data in its checkpoints, and what is said where it is used otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import MMLogger

from omh_mmseg.checkpoint_files import TRAINED_WITH, CheckpointError
from omh_mmseg.switches import ACCEPT, is_on

FEATURES = ('normalisation', 'padding', 'backbone', 'weights')
"""Parts of a record that the features depend on."""
PREDICTIONS = (
    *FEATURES, 'size', 'reading', 'single_size', 'single_reading', 'head', 'hierarchy', 'num_classes', 'classes',
)  # fmt: skip
"""Parts that predictions and their scores depend on."""
TRAINING = (*PREDICTIONS, 'train_size', 'train_reading')
"""Parts that a resumed run must have in common with its beginning."""
MISSING = 'nothing'


class ProvenanceError(CheckpointError):
    """Something is used with other settings than those that it was made with."""


def record_of(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint was trained with, by part; None where it does not say so, as those of 0.2 and before."""
    record = (checkpoint.get('meta') or {}).get(TRAINED_WITH)
    return dict(record) if isinstance(record, Mapping) else None


def differing_settings(stored: Mapping[str, Any], current: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """Where two records differ, one text per setting; parts that either of them lacks do not count.

    Args:
        stored: Of a checkpoint.
        current: Of the run at hand.
        parts: Names of the parts to compare.
    """
    found = []
    for part in parts:
        if stored.get(part) is None or current.get(part) is None:
            continue
        before, now = (dict(_flat(record[part], part)) for record in (stored, current))
        for key in dict.fromkeys([*before, *now]):
            one, other = before.get(key, MISSING), now.get(key, MISSING)
            if one != other:
                found.append(f'{key} was {_text(one)} and is {_text(other)} now')
    return found


def compare_with_run(
    name: str,
    stored: Mapping[str, Any] | None,
    current: Mapping[str, Any],
    parts: Iterable[str] = PREDICTIONS,
    accept: bool = False,
) -> None:
    """Refuse settings other than those of a checkpoint's run; where they are accepted, name them in one warning.

    Args:
        name: The checkpoint.
        stored: What it was trained with, from `record_of`; without it there is one warning.
        current: The same of the run at hand.
        parts: Names of the parts to compare.
        accept: Accept differences, as the switch `ACCEPT` does.

    Raises:
        ProvenanceError: They differ; the message has both values of each.
    """
    logger = MMLogger.get_current_instance()
    if stored is None:
        logger.warning(
            f'{name} does not say what it was trained with: whether normalisation, image size and backbone of the '
            'config are those of its run cannot be checked'
        )
        return
    found = differing_settings(stored, current, parts)
    if not found:
        return
    listed = f'{name} was trained with other settings than the config has: {"; ".join(found)}'
    if accept or is_on(ACCEPT):
        logger.warning(f'{listed}. This was accepted')
        return
    raise ProvenanceError(
        f'{listed}. Its results would be others than those of its run. Use the config in the work directory of its run '
        '(the commands take that directory in place of CONFIG and CHECKPOINT), or accept the differences: '
        f'--accept-differences, {ACCEPT}=1 for mmseg, accept_differences=True from Python'
    )


def _flat(value: Any, key: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(key, list(value) if isinstance(value, tuple) else value)]
    return [entry for name, inner in value.items() for entry in _flat(inner, f'{key}.{name}')]


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return f'[{", ".join(value)}]'
    return str(value)
