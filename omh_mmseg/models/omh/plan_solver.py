"""Transport plans between the present centres of neighbouring levels, step after step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmengine import dist
from torch import Tensor, nn

from omh_mmseg.models.omh.host_copy import HostCopy, send
from omh_mmseg.registry import MODELS
from omh_mmseg.transport import TransportPlan, diagnose_plan, hierarchy_plans
from omh_mmseg.transport.plan import PLAN_GRADIENTS, SOLVERS
from omh_mmseg.utils.checks import SIZE, ranges
from omh_mmseg.utils.precision import wide_dtype

MARGINALS = ('uniform', 'activation')
MARGINAL_FLOOR = 1e-3
FIGURES = ('sparsity', 'parents_mean', 'parents_max', 'violation', 'iterations')


@MODELS.register_module()
class PlanSolver(nn.Module):
    """Solves the entropic plans of all level pairs, and keeps between steps what the next solve starts from.

    Args:
        level_sizes: K_1..K_N; filled in by the head.
        entropy_weight: lambda, above 0.
        marginal: ``'uniform'``, or ``'activation'`` for the mean activations of the batch, over all processes (a
            choice of this library).
        gradient: ``'detach'``, or ``'solver'``: the matching loss also moves the centres through the plan.
        solver: ``'newton'``, which converges in a few steps at any lambda, or ``'sinkhorn'``, the paper's.
        tolerance: Of the solver, see `entropic_plan`.
        max_iterations: Of the solver.
        warm_start: Start each solve from the previous step's potentials, which are kept in the state dict.

    Raises:
        ValueError: On values outside the ranges above.

    Source: docs/methods/omh.md 2.
    """

    @ranges(entropy_weight='[0.001, 1000]', tolerance='(0, 1)', max_iterations='[1, 1000000]', level_sizes=SIZE)
    def __init__(
        self,
        level_sizes: Sequence[int],
        entropy_weight: float = 0.05,
        marginal: str = 'uniform',
        gradient: str = 'detach',
        solver: str = 'newton',
        tolerance: float = 1e-6,
        max_iterations: int = 1000,
        warm_start: bool = True,
    ) -> None:
        super().__init__()
        for name, value, accepted in (
            ('marginal', marginal, MARGINALS), ('gradient', gradient, PLAN_GRADIENTS), ('solver', solver, SOLVERS)
        ):  # fmt: skip
            if value not in accepted:
                raise ValueError(f'{name} must be one of {accepted}; got {value!r}.')
        self.levels = len(level_sizes)
        self.entropy_weight = entropy_weight
        self.marginal = marginal
        self.gradient = gradient
        self.solver = solver
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.warm_start = warm_start
        self._host_copy = HostCopy()
        # Zero potentials are the solver's own cold start, so that a fresh solver needs no flag.
        for level, (rows, columns) in enumerate(zip(level_sizes, level_sizes[1:])):
            self.register_buffer(f'row_potential_{level}', torch.zeros(rows, dtype=torch.float64))
            self.register_buffer(f'column_potential_{level}', torch.zeros(columns, dtype=torch.float64))
        if marginal == 'activation':
            for level, size in enumerate(level_sizes):
                self.register_buffer(f'marginal_{level}', torch.full((size,), 1 / size))

    @property
    def on_host(self) -> bool:
        """The solver asks for the violation again and again, and its problems are too small for anything but a CPU."""
        return self.gradient == 'detach'

    def begin_run(self) -> None:
        """Start cold, from uniform marginals."""
        for name, buffer in self.named_buffers():
            buffer.fill_(1 / len(buffer) if name.startswith('marginal_') else 0)

    def begin_step(self, centres: Sequence[Tensor]) -> None:
        """Send what plans are solved from to the host, while the device computes something else.

        `forward` does without, but waits for it.
        """
        if self.on_host and self.marginal == 'uniform':
            self._host_copy.start(self._problem(centres))

    def forward(
        self, centres: Sequence[Tensor], activations: Sequence[Tensor] | None = None
    ) -> tuple[list[TransportPlan], dict[str, Tensor]]:
        """Solve.

        Args:
            centres: (K_l, D) of each level.
            activations: Per level (P, K_l). With ``marginal='activation'`` they renew the marginals, which are kept for
                calls without them.

        Returns:
            The plans, where the centres are, and scalars ``omh_sparsity_12``, ... to watch (docs/methods/omh.md 4).

        Raises:
            FloatingPointError: If a plan is not finite, naming the level pair.
        """
        if self.marginal == 'activation':
            for level, activation in enumerate(activations or ()):
                share = activation.detach().mean(0)
                dist.all_reduce(share, op='mean')
                # An empty cluster would make the transport problem degenerate.
                getattr(self, f'marginal_{level}').copy_(share.clamp_min(MARGINAL_FLOOR / len(share)))
        solved = self._solve(centres)
        figures = {}
        for level, plan in enumerate(solved, start=1):
            diagnostics = diagnose_plan(plan)
            for name in FIGURES:
                figures[f'omh_{name}_{level}{level + 1}'] = torch.tensor(float(getattr(diagnostics, name)))
        return self._on_device(solved, centres[0]), figures

    def _problem(self, centres: Sequence[Tensor]) -> list[Tensor]:
        """Centres, then potentials, then marginals, as far as there are any."""
        tensors = list(centres)
        if self.warm_start:
            tensors += [potential for level in range(self.levels - 1) for potential in self._potentials(level)]
        if self.marginal == 'activation':
            tensors += [getattr(self, f'marginal_{level}') for level in range(self.levels)]
        return tensors

    def _solve(self, centres: Sequence[Tensor]) -> list[TransportPlan]:
        """Plans where they are solved."""
        tensors = self._problem(centres)
        if self.on_host:
            tensors = self._host_copy.finish(tensors)
        centres, rest = tensors[: self.levels], tensors[self.levels :]
        pairs = 2 * (self.levels - 1) if self.warm_start else 0
        potentials, marginals = rest[:pairs], rest[pairs:]
        return hierarchy_plans(
            centres,
            self.entropy_weight,
            marginals or None,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            warm_starts=list(zip(potentials[::2], potentials[1::2])) if self.warm_start else None,
            gradient=self.gradient,
            solver=self.solver,
        )

    def _on_device(self, solved: list[TransportPlan], like: Tensor) -> list[TransportPlan]:
        """The plans on the device of ``like``; in training their potentials are kept for the next ones."""
        if self.on_host and solved:
            sent = send([tensor for plan in solved for tensor in (plan.plan, *plan.potentials)], like.device)
            dtype = wide_dtype(like)
            solved = [
                replace(plan, plan=matrix.to(dtype), potentials=(rows, columns))
                for plan, matrix, rows, columns in zip(solved, sent[::3], sent[1::3], sent[2::3])
            ]
        if self.warm_start and self.training:
            for level, plan in enumerate(solved):
                for buffer, potential in zip(self._potentials(level), plan.potentials):
                    buffer.copy_(potential)
        return solved

    def _potentials(self, level: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f'row_potential_{level}'), getattr(self, f'column_potential_{level}')
