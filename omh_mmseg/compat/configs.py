"""Upstream limits of where configs are looked for by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

SCOPE = 'omh_mmseg'


@functools.cache
def find_configs_in_no_folder() -> None:
    """Let ``omh_mmseg::NAME.py`` name a config, in ``mmengine.hub`` and in ``_base_``.

    Range: every mmengine, which knows the packages of OpenMMLab alone, and takes names alone that have a folder in
    them: ``mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py``. Symptoms: ``mmengine does not support to load
    omh_mmseg config``; ``please specify the package name and relative config path``.
    """
    from mmengine.config import config, utils
    from mmengine.hub import hub

    utils.MODULE2PACKAGE[SCOPE] = SCOPE
    original = utils._get_package_and_cfg_path

    @functools.wraps(original)
    def split(cfg_path: str) -> tuple[str, str]:
        package, _, name = cfg_path.partition('::')
        return (SCOPE, name) if package == SCOPE else original(cfg_path)

    for module in (config, hub, utils):
        module._get_package_and_cfg_path = split


def find_models_by(path_of: Callable[[str], str | None], weights_of: Callable[[str], str | None]) -> None:
    """Let ``MMSegInferencer`` take the names of other configs than those of mmseg.

    Range: every mmengine, whose inferencers look up names in the metafiles of one package, and need an entry
    ``Weights``. Symptoms: ``Cannot find model: omh_stego_vit-t8_demo in mmseg``; a ``KeyError``.

    Args:
        path_of: The config file of a name; None for names of others.
        weights_of: The checkpoint of such a name; None without one, of which mmengine then warns.
    """
    from mmengine.config import Config
    from mmengine.infer import BaseInferencer

    original = getattr(BaseInferencer._load_model_from_metafile, '__wrapped__', None)
    original = original or BaseInferencer._load_model_from_metafile

    @functools.wraps(original)
    def load(self: Any, model: str) -> tuple[Any, str | None]:
        path = path_of(model)
        return original(self, model) if path is None else (Config.fromfile(path), weights_of(model))

    BaseInferencer._load_model_from_metafile = load
