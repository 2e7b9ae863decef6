"""What a checkpoint file may hold, and what is said of one that is not read; needs the standard library alone."""

from __future__ import annotations

import errno
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from omh_mmseg.switches import TRUST, is_on

FILE = 'file'
"""Entry of a state dict's metadata that names the file which it was read from."""
TRAINED_WITH = 'trained_with'
"""Entry of a checkpoint's ``meta``; once it is read, entry of its state dict's metadata: the file and the former."""


class CheckpointError(ValueError):
    """A checkpoint that is not read, or that does not fit what it is read for."""


@contextmanager
def read_as_data(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make every ``torch.load`` inside read tensors and plain values alone, unless the user trusts the files.

    Raises:
        CheckpointError: The file ``path`` holds anything else, or is no checkpoint.
    """
    try:
        with mock.patch.dict(os.environ):
            if not is_on(TRUST):
                os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
                os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
            yield
    except Exception as error:
        # torch seeks beyond the end of some files that were cut.
        if isinstance(error, OSError) and (error.filename is not None or error.errno != errno.EINVAL):
            raise
        if isinstance(error, pickle.UnpicklingError) and not is_on(TRUST):
            reason = ' '.join(str(error).partition('WeightsUnpickler error:')[2].split())[:120]
            raise CheckpointError(
                f'{path} holds more than tensors and plain values, or is damaged ({reason}); it was not read, as it '
                f'could run code. Use the checkpoint of a run, or, if you trust whoever made it, set {TRUST}=1 '
                '(--trust in the commands of this library): it is then read as it is, and what it holds is run.'
            ) from error
        reason = f'{type(error).__name__}: {" ".join(str(error).split())[:120]}'
        raise CheckpointError(f'{path} is damaged or no checkpoint ({reason}). Copy or download it again.') from error


def named_content(content: Any, path: str) -> dict[str, Any]:
    """A checkpoint's content, whose state dict says in its metadata which file it comes from, and of what run.

    Loaders hand the state dict alone to the model; its metadata reach `torch.nn.Module._load_from_state_dict`.

    Args:
        content: What the file holds.
        path: The file.

    Raises:
        CheckpointError: It is no dict, or its state dict, metadata or message hub is none.
    """
    sections = dict(content=content)
    if isinstance(content, dict):
        sections |= {name: content[name] for name in ('state_dict', 'meta', 'message_hub') if name in content}
    for name, section in sections.items():
        if not isinstance(section, dict) or not all(isinstance(key, str) for key in section):
            kind = 'dict whose keys are no names' if isinstance(section, dict) else type(section).__name__
            raise CheckpointError(
                f'{path} is no checkpoint of a run: its {name} is a {kind}. Use the checkpoint of a run, '
                'or a dict of weights by name.'
            )
    if 'meta' in sections:
        _check_classes(content['meta'].get('dataset_meta'), path)
    state = content.get('state_dict', content)
    metadata = getattr(state, '_metadata', None)
    versions = {
        module: dict(version=entry.get('version'))
        for module, entry in (metadata.items() if isinstance(metadata, Mapping) else ())
        if isinstance(entry, Mapping)
    }
    record = content['meta'].get(TRAINED_WITH) if 'state_dict' in content and 'meta' in content else None
    origin = {FILE: path, TRAINED_WITH: (path, record)}
    state = OrderedDict(state)
    state._metadata = OrderedDict({**versions, '': {**versions.get('', {}), **origin}})  # type: ignore[attr-defined]
    return {**content, 'state_dict': state} if 'state_dict' in content else state


def _check_classes(named: Any, path: str) -> None:
    """Raise CheckpointError if names and colours of the classes, which every prediction uses, are none."""
    if named is None:
        return
    classes, palette = (named.get(key) for key in ('classes', 'palette')) if isinstance(named, dict) else (0, 0)
    names = classes is None or (isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes))
    if not names or not (palette is None or isinstance(palette, (list, tuple))):
        raise CheckpointError(
            f'{path} is no checkpoint of a run: its meta.dataset_meta has no names and colours of classes. Use the '
            'checkpoint of a run.'
        )
