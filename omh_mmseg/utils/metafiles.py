"""What the metafiles say of the shipped configs, in the form that the tools of OpenMMLab read."""

from __future__ import annotations

from typing import Any

from mmengine.fileio import load

from omh_mmseg.shipped import PACKAGE_SCHEME, asset_path, shipped_folder

INDEX = 'model-index.yml'


def read_models() -> dict[str, dict[str, Any]]:
    """The entries under ``Models`` of every metafile that ``model-index.yml`` imports, by name."""
    root = shipped_folder('configs').parent
    metafiles = [load(root / file) for file in load(root / INDEX)['Import']]
    return {model['Name']: model for metafile in metafiles for model in metafile['Models']}


def weights_of(name: str) -> str | None:
    """Path or address of the trained weights of a config; None where none are offered."""
    address: str | None = read_models().get(name.removesuffix('.py'), {}).get('Weights')
    if address is not None and address.startswith(PACKAGE_SCHEME):
        return str(asset_path(address))
    return address
