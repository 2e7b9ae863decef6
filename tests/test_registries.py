"""A config whose base is one of ours names our scope in all that it inherits."""

from __future__ import annotations

import pytest
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import IterBasedTrainLoop
from mmseg import registry as mmseg_registry

from omh_mmseg.registry import HOOKS, MODELS

OF_MMSEG = {name: one for name, one in vars(mmseg_registry).items() if isinstance(one, Registry)}


@pytest.mark.parametrize('name', sorted(OF_MMSEG))
def test_every_registry_of_mmseg_is_searched_from_our_scope(name: str) -> None:
    """Else mmengine warns of each that a search may fail."""
    registry = OF_MMSEG[name]
    with DefaultScope.overwrite_default_scope('omh_mmseg'), registry.switch_scope_and_registry('omh_mmseg') as found:
        assert found is registry.children['omh_mmseg']


def test_what_is_mmengines_is_found_from_our_scope() -> None:
    assert mmseg_registry.LOOPS.children['omh_mmseg'].get('IterBasedTrainLoop') is IterBasedTrainLoop


def test_ours_are_in_both() -> None:
    assert MODELS.get('STEGO') is mmseg_registry.MODELS.get('STEGO') is not None
    assert HOOKS.get('RunLengthHook') is mmseg_registry.HOOKS.get('RunLengthHook') is not None
