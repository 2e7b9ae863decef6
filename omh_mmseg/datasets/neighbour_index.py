"""The index of nearest neighbours: how it is computed, how it is stored, and what it belongs to.

An index file is an npz with ``neighbours``, int32 (N, k), column 0 being the item itself, and ``fingerprint``, a JSON
text that says which images, pipeline, backbone, weights and normalisation it was computed from. Nothing of that stands
in the file's name: whoever uses an index compares fingerprints (:func:`compare_fingerprints`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from omh_mmseg.datasets.wrappers.base import DatasetWrapper

BACKBONE_KEYS_OUTSIDE = ('checkpoint', 'init_cfg', 'pretrained')
TRANSFORMS_OUTSIDE = ('PackSegInputs', 'LoadAnnotations', 'LoadOptionalAnnotations')
SAMPLED_SIZES = 64
DATASET_PARTS = ('items', 'images', 'pipeline')
MODEL_PARTS = ('backbone', 'weights', 'normalisation')


@torch.no_grad()
def pooled_features(
    backbone: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    total: int | None = None,
    progress: bool = True,
) -> Tensor:
    """One direction per image: the global average of the feature map, L2-normalised (METHODS.md 5.7).

    Args:
        backbone: From images (B, 3, H, W) to features (B, C, h, w). Put it in eval mode first: STEGO's own index is
            computed with channel dropout active, which makes two runs differ.
        batches: Normalised images (B, 3, H, W) on the backbone's device.
        total: Number of images, for the progress bar.
        progress: Draw a progress bar on stderr.

    Returns:
        float32 (N, C) on the CPU.

    Raises:
        ValueError: No images, or a feature that is not finite.
    """
    features = []
    with _bar(progress) as bar:
        task = bar.add_task('features of the images', total=total)
        for images in batches:
            pooled = backbone(images).float().mean(dim=(2, 3))
            features.append(nn.functional.normalize(pooled, dim=1).cpu())
            bar.advance(task, len(images))
    if not features:
        raise ValueError('there are no images to compute features of')
    stacked = torch.cat(features)
    bad = (~torch.isfinite(stacked).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f'the backbone gives features that are not finite for {len(bad)} images, first item {bad[0]}')
    return stacked


@torch.no_grad()
def build_neighbour_index(
    features: Tensor,
    num_neighbours: int = 30,
    chunk_size: int = 1024,
    device: str | torch.device = 'cpu',
    progress: bool = False,
) -> np.ndarray:
    """Exact nearest neighbours by dot product, in blocks.

    Similarities exist only for ``chunk_size`` x ``8 * chunk_size`` pairs at a time (32 MB at the default), whatever N.

    Args:
        features: (N, C), L2-normalised, N >= 2.
        num_neighbours: Columns of the index, the item itself included.
        chunk_size: Rows per block.
        device: Where to multiply.
        progress: Draw a progress bar on stderr.

    Returns:
        int32 (N, min(num_neighbours, N)): column 0 is the item itself, also where others have the same feature; then
        the others by falling similarity.

    Raises:
        ValueError: Fewer than two items, or sizes that are not positive.
    """
    items = len(features)
    if features.ndim != 2 or items < 2:
        raise ValueError(f'neighbours need features (N, C) with N >= 2 items, got the shape {tuple(features.shape)}')
    if num_neighbours < 2 or chunk_size < 1:
        raise ValueError(
            f'num_neighbours must be at least 2 (the item itself counts) and chunk_size at least 1, got '
            f'{num_neighbours} and {chunk_size}'
        )
    others = min(num_neighbours, items) - 1
    index = np.empty((items, others + 1), dtype=np.int32)
    index[:, 0] = np.arange(items)
    with _bar(progress) as bar:
        task = bar.add_task('nearest neighbours', total=items)
        for start in range(0, items, chunk_size):
            rows = torch.arange(start, min(start + chunk_size, items))
            best = _best_others(features, rows, others, 8 * chunk_size, torch.device(device))
            index[start : start + len(rows), 1:] = best.cpu().numpy()
            bar.advance(task, len(rows))
    return index


def _bar(enabled: bool) -> Progress:
    return Progress(console=Console(stderr=True), disable=not enabled)


def _best_others(features: Tensor, rows: Tensor, others: int, columns: int, device: torch.device) -> Tensor:
    """Numbers (R, others) of the most similar items to each of the consecutive ``rows``, themselves excluded."""
    queries = features[rows].to(device)
    best = queries.new_full((len(rows), 0), 0.0)
    numbers = torch.empty((len(rows), 0), dtype=torch.long, device=device)
    for start in range(0, len(features), columns):
        block = features[start : start + columns].to(device)
        similarity = queries @ block.T  # (R, columns)
        own = (rows - start).to(device)
        inside = ((own >= 0) & (own < len(block))).nonzero().flatten()
        similarity[inside, own[inside]] = -torch.inf
        candidates = torch.arange(start, start + len(block), device=device).expand(len(rows), -1)
        best = torch.cat((best, similarity), dim=1)
        numbers = torch.cat((numbers, candidates), dim=1)
        best, order = best.topk(min(others, best.shape[1]), dim=1)
        numbers = numbers.gather(1, order)
    return numbers


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
        np.savez_compressed(
            file, neighbours=self.neighbours.astype(np.int32), fingerprint=json.dumps(self.fingerprint, sort_keys=True)
        )


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
        base = base.dataset
    core = base
    while not hasattr(core, 'pipeline') and hasattr(core, 'dataset'):
        core = core.dataset
    root = getattr(core, 'data_root', None)
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
        backbone_cfg: Its config; where the weights come from does not count, their digest does.
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


def suggested_command(*flags: str) -> str:
    """The command that makes the index for the run that is going on, as far as its command line tells."""
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
    return shlex.join(['python', 'tools/precompute_neighbours.py', config, *flags, *options])
