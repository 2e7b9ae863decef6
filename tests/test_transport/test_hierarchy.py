"""Diagnostics and the tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from omh_mmseg.transport import Hierarchy, cluster_usage, diagnose_plan
from omh_mmseg.transport.plan import entropic_plan

PARENTS = torch.tensor([1, 0, 1, 0])


@pytest.fixture
def hierarchy() -> Hierarchy:
    top = torch.tensor([[0.02, 0.23, 0.05, 0.2], [0.23, 0.02, 0.2, 0.05]])
    bottom = torch.eye(4).repeat_interleave(2, 1) / 8
    return Hierarchy.from_plans([2, 4, 8], [top, bottom])


def test_parents_mass_and_ancestors(hierarchy: Hierarchy) -> None:
    assert torch.equal(hierarchy.parents[0], PARENTS)
    expected = torch.tensor([0.92, 0.92, 0.8, 0.8], dtype=torch.float64)
    torch.testing.assert_close(hierarchy.parent_mass[0], expected, rtol=1e-6, atol=0)
    assert hierarchy.ancestors(1).tolist() == [0, 1]
    assert hierarchy.ancestors(3).tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    with pytest.raises(ValueError, match='level must be 1 to 3; got 4'):
        hierarchy.ancestors(4)


def test_json_round_trip(hierarchy: Hierarchy, tmp_path: Path) -> None:
    path = hierarchy.to_json(tmp_path / 'new' / 'hierarchy.json')
    again = Hierarchy.from_json(path)
    assert again.level_sizes == [2, 4, 8]
    assert all(torch.equal(a, b) for a, b in zip(again.plans, hierarchy.plans))
    tree = json.loads(path.read_text())['tree']
    assert [child['cluster'] for child in tree[0]['children']] == [1, 3]
    assert [leaf['cluster'] for leaf in tree[0]['children'][0]['children']] == [2, 3]
    assert [item.name for item in path.parent.iterdir()] == ['hierarchy.json']


def test_unreadable_json(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='No hierarchy file'):
        Hierarchy.from_json(tmp_path / 'absent.json')
    (tmp_path / 'other.json').write_text('{"format_version": 99}')
    with pytest.raises(ValueError, match='other.json is not a hierarchy .* format_version 99'):
        Hierarchy.from_json(tmp_path / 'other.json')


def test_plans_must_fit_the_levels() -> None:
    with pytest.raises(ValueError, match=r'\[2, 4\] need plans of shapes \[\(2, 4\)\]'):
        Hierarchy([2, 4], [torch.ones(4, 2)])


def test_diagnostics_of_sharp_and_dense_plans() -> None:
    basis = torch.eye(4, dtype=torch.float64)
    fine = basis.repeat_interleave(2, 0)
    sharp = diagnose_plan(entropic_plan(basis, fine, 0.02))
    assert sharp.sparsity == pytest.approx(0.25)
    assert sharp.parents_mean == pytest.approx(1, abs=1e-3)
    dense = diagnose_plan(entropic_plan(basis, fine, 100.0))
    assert dense.sparsity == 1
    assert dense.parents_max == pytest.approx(4, abs=0.01)


def test_unconverged_plan_shows_its_violation() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, 8, generator=generator) for size in (6, 12))
    hurried = diagnose_plan(entropic_plan(a, b, 0.005, max_iterations=2, solver='sinkhorn'))
    assert hurried.violation > 0.05 and hurried.iterations == 2


def test_cluster_usage() -> None:
    usage = cluster_usage(torch.tensor([[0, 2], [2, 2]]), 4)
    torch.testing.assert_close(usage, torch.tensor([0.25, 0, 0.75, 0]))
