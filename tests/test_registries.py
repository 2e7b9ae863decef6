"""A config whose base is one of ours names our scope in all that it inherits."""

from __future__ import annotations

import pytest
from mmengine.registry import DefaultScope, Registry
from mmseg import registry as mmseg_registry

from omh_mmseg.registry import HOOKS, MODELS

OF_MMSEG = [one for one in vars(mmseg_registry).values() if isinstance(one, Registry)]


@pytest.mark.parametrize('name', ['LOOPS', 'OPTIM_WRAPPERS', 'VISBACKENDS', 'PARAM_SCHEDULERS', 'EVALUATOR'])
def test_what_is_mmengines_is_found_from_our_scope(name: str) -> None:
    """Else mmengine warns of each that a search may fail."""
    registry = getattr(mmseg_registry, name)
    assert 'omh_mmseg' in registry.children
    with DefaultScope.overwrite_default_scope('omh_mmseg'), registry.switch_scope_and_registry('omh_mmseg') as found:
        assert found is registry.children['omh_mmseg']
        assert mmseg_registry.LOOPS.get('IterBasedTrainLoop') is not None


def test_ours_are_in_both() -> None:
    assert OF_MMSEG and MODELS.get('STEGO') is mmseg_registry.MODELS.get('STEGO')
    assert HOOKS.get('RunLengthHook') is mmseg_registry.HOOKS.get('RunLengthHook')
