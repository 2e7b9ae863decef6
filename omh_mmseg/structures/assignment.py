"""Assignments of clusters to classes as JSON, so that a matching found on one split can be applied to another."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.shipped import command_line
from omh_mmseg.utils.checks import MAX_SIZE
from omh_mmseg.utils.files import replaced_when_complete

AssignmentSource = str | os.PathLike[str] | Mapping[str, Sequence[int]]
"""A file that `write_assignment` wrote, or field of the data sample -> class of each cluster."""
TOOL = 'analysis_tools/fit_assignment.py'
CLUSTERS = 'pred_clusters'
"""Field of the cluster numbers where ``pred_sem_seg`` holds classes."""
META_KEY = 'cluster_classes'
"""Key of the data samples' metadata under which a model that knows its clusters' classes puts them, by field.

Without the key a prediction holds classes; with it, but without its field, clusters of which nothing is known.
"""


def write_assignment(
    path: str | os.PathLike[str], assignment: Mapping[str, Sequence[int] | np.ndarray], **notes: Any
) -> Path:
    """Write ``{"assignment": {field: [class of cluster 0, ...]}, ...}``.

    Args:
        path: File to write.
        assignment: Field of the data sample -> class of each cluster, ``UNMATCHED`` for none.
        **notes: What else to store, for the reader: class names, split, checkpoint.

    Returns:
        ``path``.
    """
    listed = {field: np.asarray(classes).tolist() for field, classes in assignment.items()}
    with replaced_when_complete(path) as file:
        file.write(f'{json.dumps({"assignment": listed, **notes}, indent=1)}\n'.encode())
    return Path(path)


def read_assignment(source: AssignmentSource) -> dict[str, np.ndarray]:
    """Assignments by field of the data sample, each int64 (clusters,).

    Args:
        source: A file that `write_assignment` wrote (or a bare ``{field: [...]}``), or the mapping itself.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The content is no assignment.
    """
    named = 'the assignment'
    content: Any = source
    if not isinstance(source, Mapping):
        named = f'the assignment file {os.fspath(source)}'
        if not Path(source).is_file():
            raise FileNotFoundError(
                f'there is no assignment file {os.fspath(source)}; {command_line(TOOL)} writes one'
            )
        try:
            content = json.loads(Path(source).read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f'{named} is not JSON: {error}') from error
        if isinstance(content, Mapping) and isinstance(content.get('assignment'), Mapping):
            content = content['assignment']
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f'{named} must map fields such as pred_sem_seg to a class per cluster; got {content!r}')
    return {str(field): _checked(named, field, classes) for field, classes in content.items()}


def missing_assignment(field: str) -> str:
    """What to say where the classes of a field are asked for and not known."""
    return (
        f'the classes of the clusters of {field} are not known: this checkpoint was not validated with labels. Match '
        f'them with {command_line(TOOL)}, or set model.test_cfg.assignment to its file or by hand, '
        f'e.g. dict({field}=[2, 0, 1])'
    )


def _checked(named: str, field: str, classes: Any) -> np.ndarray:
    try:
        values = np.asarray(classes)
    except ValueError:
        values = np.zeros(0)
    whole = values.ndim == 1 and values.size > 0 and values.dtype.kind in 'iu'
    if not whole or values.min() < UNMATCHED or values.max() >= MAX_SIZE:
        raise ValueError(
            f'{named} has {classes!r} for {field}; it must be a list of class numbers, one per cluster, '
            f'{UNMATCHED} for a cluster without a class'
        )
    return values.astype(np.int64)


UNMATCHED = -1
"""Class of a cluster that the assignment left over."""
