"""The index of nearest neighbours: how it is stored and what it belongs to.

An index file is an npz with ``neighbours``, int32 (N, k), column 0 being the item itself, and ``fingerprint``, a JSON
text that says which images, pipeline, backbone, weights, normalisation and, if any, channel dropout it was computed
from. Nothing of that stands in the file's name: whoever uses an index compares fingerprints
(:func:`compare_fingerprints`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from omh_mmseg.datasets.neighbour_search import Rows
from omh_mmseg.datasets.wrappers.base import DatasetWrapper

BACKBONE_KEYS_OUTSIDE = ('checkpoint', 'init_cfg', 'pretrained', 'channels_last')
TRANSFORMS_OUTSIDE = ('PackSegInputs', 'LoadAnnotations', 'LoadOptionalAnnotations')
SAMPLED_SIZES = 64
WRITTEN_ROWS = 65536
DATASET_PARTS = ('items', 'images', 'pipeline')
MODEL_PARTS = ('backbone', 'weights', 'normalisation')
DROPOUT_PART = 'train_mode_dropout'


@dataclass
class NeighbourIndex:
    """An index in memory.

    Attributes:
        neighbours: int32 (N, k), column 0 the item itself.
        fingerprint: What it was computed from.
    """

    neighbours: np.ndarray
    fingerprint: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> NeighbourIndex:
        """Read an index file.

        Raises:
            FileNotFoundError: There is no such file; the message holds the command that makes it.
            ValueError: The file is damaged or not an index.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'there is no neighbour index {path}. Make it with\n    {suggested_command()}')
        try:
            with np.load(path) as arrays:
                neighbours, fingerprint = arrays['neighbours'], json.loads(str(arrays['fingerprint']))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f'{path} is not a neighbour index or is damaged ({type(error).__name__}: {error}). Make it anew with\n'
                f'    {suggested_command("--force")}'
            ) from error
        shape_ok = neighbours.ndim == 2 and np.issubdtype(neighbours.dtype, np.integer)
        if not shape_ok or not np.array_equal(neighbours[:, 0], np.arange(len(neighbours))):
            raise ValueError(
                f'{path}: `neighbours` must be whole numbers (N, k) with the item itself in column 0, got '
                f'{neighbours.dtype} {neighbours.shape}. Make it anew with\n    {suggested_command("--force")}'
            )
        return cls(neighbours, fingerprint)

    def write(self, file: BinaryIO) -> None:
        """Write the npz to an open file."""
        write_index(file, self.neighbours, self.fingerprint)


def write_index(file: BinaryIO, neighbours: Rows, fingerprint: dict[str, Any]) -> None:
    """Write the npz to an open file, a block of rows at a time.

    Args:
        file: Open for writing.
        neighbours: Whole numbers (N, k), in memory or as a file of rows.
        fingerprint: What the index was computed from.
    """
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('neighbours.npy', 'w', force_zip64=True) as entry:
            header = dict(descr='<i4', fortran_order=False, shape=tuple(neighbours.shape))
            np.lib.format.write_array_header_1_0(entry, header)
            for start in range(0, neighbours.shape[0], WRITTEN_ROWS):
                block = neighbours[start : start + WRITTEN_ROWS]
                entry.write(np.ascontiguousarray(block, '<i4').tobytes())
        with archive.open('fingerprint.npy', 'w') as entry:
            np.lib.format.write_array(entry, np.array(json.dumps(fingerprint, sort_keys=True)))


def dataset_fingerprint(dataset: Any) -> dict[str, Any]:
    """What identifies the items of a data set: their number, the image list and the pipeline.

    Images are known by their path below ``data_root`` (a moved folder stays valid) and by the size in bytes of up to 64
    of them. Loading of labels and packing do not count, since features do not depend on them.

    Args:
        dataset: A data set or wrapper of data sets, completely initialised.

    Returns:
        ``items`` (int), ``images`` (digest) and ``pipeline`` (list of readable transforms).
    """
    wrappers = []
    base = dataset
    while isinstance(base, DatasetWrapper):
        wrappers.append(repr(base))
        if not base.uses_wrapped_images:
            break
        base = base.dataset
    core = base
    while not hasattr(core, 'pipeline') and hasattr(core, 'dataset'):
        core = core.dataset
    root = getattr(base if isinstance(base, DatasetWrapper) else core, 'data_root', None)
    paths = [base.get_data_info(item)['img_path'] for item in range(len(base))]
    digest = hashlib.sha256()
    for path in paths:
        name = os.path.relpath(path, root) if root else os.path.basename(path)
        digest.update(name.replace(os.sep, '/').encode() + b'\n')
    for path in paths[:: max(1, len(paths) // SAMPLED_SIZES)]:
        digest.update(f'{os.path.getsize(path) if os.path.isfile(path) else -1}\n'.encode())
    transforms = getattr(getattr(core, 'pipeline', None), 'transforms', [])
    kept = [transform for transform in transforms if type(transform).__name__ not in TRANSFORMS_OUTSIDE]
    pipeline = [re.sub(r' at 0x[0-9a-f]+', '', repr(transform)) for transform in kept]
    return dict(items=len(dataset), images=digest.hexdigest()[:16], pipeline=[*reversed(wrappers), *pipeline])


def model_fingerprint(backbone: nn.Module, backbone_cfg: dict, preprocessor_cfg: dict) -> dict[str, Any]:
    """What identifies the features: the backbone's config, its loaded weights and the normalisation.

    Args:
        backbone: The built backbone with its weights loaded.
        backbone_cfg: Its config; where the weights come from does not count, their digest does, nor does
            the order of the values in memory.
        preprocessor_cfg: Config of the data preprocessor.

    Returns:
        ``backbone`` (config as canonical JSON), ``weights`` (digest) and ``normalisation``.
    """
    normalisation = {
        key: preprocessor_cfg[key] for key in ('mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr') if preprocessor_cfg.get(key)
    }
    return dict(
        backbone=_canonical(backbone_cfg),
        weights=state_dict_digest(backbone),
        normalisation=_canonical(normalisation),
    )


def state_dict_digest(module: nn.Module) -> str:
    """SHA-256 (first 16 digits) over names, types, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        digest.update(f'{name.replace("_orig_mod.", "")} {value.dtype} {tuple(value.shape)}\n'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b'')
    return digest.hexdigest()[:16]


def _canonical(cfg: Any) -> str:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(entry) for key, entry in sorted(value.items()) if key not in BACKBONE_KEYS_OUTSIDE}
        if isinstance(value, (list, tuple)):
            return [strip(entry) for entry in value]
        if isinstance(value, type):
            return value.__name__
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return json.dumps(strip(cfg), sort_keys=True, default=repr)


def compare_fingerprints(stored: dict, current: dict, parts: Iterable[str]) -> list[str]:
    """Describe where two fingerprints differ, one sentence per part; empty if they agree."""
    differences = []
    for part in parts:
        if stored.get(part) != current.get(part):
            differences.append(f'{part}: the index has {stored.get(part)}, this run has {current.get(part)}')
    return differences


def resolve_index_path(index: str | Path, fingerprint: dict[str, Any]) -> Path:
    """Fill in ``{fingerprint}`` in an index path: eight digits that stand for image list and pipeline.

    Configs that are used for many folders write ``data/neighbours/folder_mobilenet-v2_{fingerprint}.npz``, so that each
    folder and each resolution has its own file.

    Args:
        index: The path as the config gives it.
        fingerprint: Of the data set, from :func:`dataset_fingerprint`.
    """
    parts = json.dumps({part: fingerprint[part] for part in DATASET_PARTS}, sort_keys=True)
    return Path(str(index).replace('{fingerprint}', hashlib.sha256(parts.encode()).hexdigest()[:8]))


def suggested_command(*flags: str, tool: str = 'precompute_neighbours.py') -> str:
    """The command that makes what the run that is going on lacks, as far as its command line tells.

    Args:
        *flags: Options of that command.
        tool: Its file in ``tools/``.
    """
    arguments = sys.argv[1:]
    configs = [argument for argument in arguments if argument.endswith(('.py', '.json', '.yaml', '.yml'))]
    config = next((argument for argument in configs if os.path.isfile(argument)), 'CONFIG')
    options: list[str] = []
    if config != 'CONFIG' and '--cfg-options' in arguments:
        options.append('--cfg-options')
        for argument in arguments[arguments.index('--cfg-options') + 1 :]:
            if argument.startswith('-'):
                break
            options.append(argument)
    return shlex.join(['python', f'tools/{tool}', config, *flags, *options])


def command_to_remake(fingerprint: dict[str, Any]) -> str:
    """The command that replaces an index by one that is made in the same way."""
    dropout = fingerprint.get(DROPOUT_PART)
    flags = ['--train-mode-dropout', str(dropout['probability'])] if dropout else []
    flags += ['--dropout-seed', str(dropout['seed'])] if dropout and dropout['seed'] else []
    return suggested_command('--force', *flags)
