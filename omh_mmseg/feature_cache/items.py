"""One item of a data set as the cache keeps it, beside its features: the label and what is known of the image."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

LABEL = 'gt_sem_seg'
PATH_SUFFIX = '_path'
HEADER_BYTES = 4


def check_item(item: Any) -> None:
    """ValueError unless an item is one image and its sample, ``inputs`` (3, H, W) and ``data_samples``."""
    inputs, sample = (item.get('inputs'), item.get('data_samples')) if isinstance(item, Mapping) else (item, None)
    if not isinstance(inputs, Tensor) or inputs.dim() != 3 or not isinstance(sample, SegDataSample):
        raise ValueError(
            'the feature cache takes items of one image (3, H, W) and its SegDataSample, as PackSegInputs makes them, '
            f'and got {type(inputs).__name__} and {type(sample).__name__}'
        )


def packed(item: Mapping[str, Any], info: Mapping[str, Any]) -> np.ndarray:
    """Label, metadata and size of the image of an item, as uint8 bytes.

    Args:
        item: As the pipeline delivers it, see `check_item`.
        info: Of the data set for this item; paths that stand there are left out.

    Raises:
        ValueError: The item holds something that a cache cannot keep.
    """
    inputs, sample = item['inputs'], item['data_samples']
    others = sorted(set(sample.keys()) - {LABEL})
    if others:
        raise ValueError(f'the feature cache keeps {LABEL} alone, and the data samples hold {others} as well')
    label = sample.gt_sem_seg.data if LABEL in sample else None
    header = dict(
        size=tuple(inputs.shape[-2:]),
        label=None if label is None else tuple(label.shape),
        metainfo={
            name: None if name.endswith(PATH_SUFFIX) and name in info else _literal(name, value)
            for name, value in sorted(sample.metainfo.items())
        },
    )
    text = repr(header).encode()
    content = len(text).to_bytes(HEADER_BYTES, 'little') + text
    if label is not None:
        narrow = label.to(torch.uint8)
        if label.dtype != torch.int64 or not torch.equal(narrow.long(), label):
            raise ValueError(
                f'{sample.metainfo.get("seg_map_path")}: the feature cache keeps labels of the values 0..255, as '
                f'int64; got {label.dtype} from {label.min().item()} to {label.max().item()}'
            )
        content += narrow.numpy().tobytes()
    return np.frombuffer(content, np.uint8)


def unpacked(content: Tensor, info: Mapping[str, Any]) -> tuple[SegDataSample, tuple[int, int]]:
    """The sample and the size (H, W) of the image, from the bytes of `packed`.

    Args:
        content: uint8 (bytes,).
        info: Of the data set for this item; the paths are taken from it, since a folder may have moved.
    """
    start = HEADER_BYTES + int.from_bytes(content[:HEADER_BYTES].numpy().tobytes(), 'little')
    header = ast.literal_eval(content[HEADER_BYTES:start].numpy().tobytes().decode())
    metainfo = header['metainfo']
    metainfo |= {name: info[name] for name in metainfo if name.endswith(PATH_SUFFIX) and name in info}
    sample = SegDataSample(metainfo=metainfo)
    if header['label'] is not None:
        sample.gt_sem_seg = PixelData(data=content[start:].long().view(header['label']))
    return sample, header['size']


def _literal(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return tuple(_literal(name, one) for one in value)
    if isinstance(value, list):
        return [_literal(name, one) for one in value]
    if isinstance(value, dict):
        return {key: _literal(name, one) for key, one in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f'the feature cache keeps metadata of plain values, and {name!r} is a {type(value).__name__}; take it out of '
        'the meta_keys of PackSegInputs'
    )
