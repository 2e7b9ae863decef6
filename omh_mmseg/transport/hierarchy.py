"""The learned hierarchy as a tree that can be saved, read back and compared."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omh_mmseg.transport.checks import check_plan
from omh_mmseg.utils.files import replaced_when_complete

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Hierarchy:
    """Clusters of all levels with the plan that relates each pair of neighbouring levels.

    Attributes:
        level_sizes: K_1 .. K_N, coarsest first.
        plans: N - 1 plans, plan l of shape (K_l, K_{l+1}), summing to 1, on the CPU.
    """

    level_sizes: list[int]
    plans: list[Tensor]

    def __post_init__(self) -> None:
        expected = list(zip(self.level_sizes, self.level_sizes[1:]))
        shapes = [tuple(plan.shape) for plan in self.plans]
        if shapes != expected:
            raise ValueError(f'Levels {self.level_sizes} need plans of shapes {expected}; got {shapes}.')
        if not self.level_sizes or not all(isinstance(size, int) and size > 0 for size in self.level_sizes):
            raise ValueError(f'Level sizes must be integers of at least 1; got {self.level_sizes}.')
        for level, plan in enumerate(self.plans, start=1):
            check_plan(plan, f'the plan of levels {level} and {level + 1}')
            if not bool((plan.sum(0) > 0).all()):
                raise ValueError(f'A cluster of level {level + 1} has no mass in the plan, and so no parent.')

    @classmethod
    def from_plans(cls, level_sizes: Sequence[int], plans: Sequence[Tensor]) -> Hierarchy:
        """Detach and copy plans from any device."""
        return cls([int(size) for size in level_sizes], [plan.detach().cpu().double() for plan in plans])

    @property
    def parents(self) -> list[Tensor]:
        """For each level pair the parent of every finer cluster: int64 tensors of shape (K_{l+1},)."""
        return [plan.argmax(0) for plan in self.plans]

    @property
    def parent_mass(self) -> list[Tensor]:
        """For each level pair the share of each finer cluster's mass that its parent takes, (K_{l+1},), in (0, 1]."""
        return [plan.max(0).values / plan.sum(0) for plan in self.plans]

    def ancestors(self, level: int) -> Tensor:
        """Level-1 ancestor of each cluster of a level (1-based), int64 of shape (K_level,)."""
        if not 1 <= level <= len(self.level_sizes):
            raise ValueError(f'level must be 1 to {len(self.level_sizes)}; got {level}.')
        ancestors = torch.arange(self.level_sizes[0])
        for parents in self.parents[: level - 1]:
            ancestors = ancestors[parents]
        return ancestors

    def to_dict(self) -> dict[str, Any]:
        """Plain data: level sizes, plans, and the tree as nested nodes with parent mass."""
        parents, mass = self.parents, self.parent_mass

        def node(level: int, cluster: int, weight: float) -> dict[str, Any]:
            entry: dict[str, Any] = dict(level=level + 1, cluster=cluster, mass=weight)
            if level < len(self.plans):
                children = (parents[level] == cluster).nonzero().flatten().tolist()
                entry['children'] = [node(level + 1, child, float(mass[level][child])) for child in children]
            return entry

        return dict(
            format_version=FORMAT_VERSION,
            level_sizes=list(self.level_sizes),
            parents=[item.tolist() for item in parents],
            parent_mass=[item.tolist() for item in mass],
            plans=[plan.tolist() for plan in self.plans],
            tree=[node(0, cluster, 1.0) for cluster in range(self.level_sizes[0])],
        )

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as JSON, atomically; parent folders are made."""
        path = Path(path)
        with replaced_when_complete(path) as file:
            file.write(json.dumps(self.to_dict(), indent=1).encode())
        return path

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Hierarchy:
        """Read what `to_json` wrote.

        Raises:
            FileNotFoundError: If the file is absent.
            ValueError: If it is not a hierarchy of this format.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'No hierarchy file at {path}; training with an OMH head writes one at its end.')
        try:
            data = json.loads(path.read_text())
            if data['format_version'] != FORMAT_VERSION:
                raise ValueError(f'format_version {data["format_version"]}, expected {FORMAT_VERSION}')
            plans = [torch.tensor(plan, dtype=torch.float64) for plan in data['plans']]
            return cls(list(data['level_sizes']), plans)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{path} is not a hierarchy written by this library: {error}') from error
