"""Reads shipped checkpoints by their address, and writes the files of those that were read and changed."""

from __future__ import annotations

import os
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from omh_mmseg.checkpoint_files import FILE, TRAINED_WITH
from omh_mmseg.shipped import PACKAGE_SCHEME, asset_path
from omh_mmseg.utils.files import replaced_when_complete


@CheckpointLoader.register_scheme(prefixes=PACKAGE_SCHEME)
def load_shipped(filename: str, map_location: Any = None) -> Any:
    """Content of a file in the package by its address, which metafiles have and ``mmengine.hub`` loads."""
    return CheckpointLoader.load_checkpoint(str(asset_path(filename)), map_location)


def write_again(content: dict[str, Any], target: str | os.PathLike[str]) -> None:
    """Write the content of a checkpoint that was read and changed, as a whole.

    What `omh_mmseg.checkpoint_files.named_content` noted of the file that was read is not of the one that is written.
    """
    state = content.get('state_dict', content)
    for noted in (FILE, TRAINED_WITH):
        getattr(state, '_metadata', {}).get('', {}).pop(noted, None)
    with replaced_when_complete(target) as file:
        torch.save(content, file)
