"""SmooSeg derived anew from docs/methods, in one straight line of plain torch and none of the package's functions.

The examiner of the SmooSeg host. The energy is summed over all pairs of positions on five axes, as its formula has it.
Frozen features and every random draw come from outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from straight_line_stego import cluster_scores, conv1x1, unit, upsample, without_fixed_points
from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """The numbers of docs/methods/smooseg.md 4.5 that one experiment sets; temperature and momentum are those of 3C."""

    b_within: float
    b_across: float
    pointwise: bool = True
    temperature: float = 0.1
    momentum: float = 0.998


@dataclass
class StraightLineSmooSeg:
    """Weights, Adam's memory and the one training step.

    Attributes:
        settings: Numbers of the experiment.
        head: ``linear.weight``, ``linear.bias``, ``hidden.weight``, ``hidden.bias``, ``out.weight``, ``out.bias``
            (docs/methods/features.md 2.1).
        student: Ps, ``(K, D)``.
        teacher: Pt, ``(K, D)``.
    """

    settings: Settings
    head: dict[str, Tensor]
    student: Tensor
    teacher: Tensor
    steps: int = 0
    memory: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def code(self, linear_input: Tensor, nonlinear_input: Tensor) -> Tensor:
        """docs/methods/features.md 2.1 with SiLU: the sum of the two branches."""
        head = self.head
        hidden = conv1x1(nonlinear_input, head['hidden.weight'], head['hidden.bias'])
        hidden = hidden / (1 + torch.exp(-hidden))
        code = conv1x1(linear_input, head['linear.weight'], head['linear.bias'])
        return code + conv1x1(hidden, head['out.weight'], head['out.bias'])

    def term(self, f: Tensor, other_f: Tensor, y: Tensor, other_y: Tensor, shift: float) -> Tensor:
        """docs/methods/smooseg.md 3C.3: the mean of ``(W - b) delta`` over all pairs of positions of paired images."""
        with torch.no_grad():
            closeness = torch.einsum('nchw,ncij->nhwij', unit(f, 1e-10), unit(other_f, 1e-10))
            if self.settings.pointwise:
                mean = closeness.mean()
                closeness = closeness - closeness.mean(dim=(3, 4), keepdim=True)
                closeness = closeness - closeness.mean() + mean
        delta = 1 - torch.einsum('nkhw,nkij->nhwij', unit(y, 1e-10), unit(other_y, 1e-10))
        return ((closeness - shift) * delta).mean()

    def train_step(self, feat: Tensor, masks: list[Tensor], permutation: Tensor) -> dict[str, float]:
        """One batch: forward, teacher update, one backward of the sum, one Adam step (docs/methods/smooseg.md 3C).

        Args:
            feat: Frozen features, ``(B, C, h, w)``.
            masks: Dropout factors ``(B, C)`` of the linear branch, the non-linear branch and the features.
            permutation: A permutation of ``range(B)``, fixed points included.

        Returns:
            The losses before the update: ``within``, ``across``, ``data``.
        """
        settings = self.settings
        parameters = {f'head.{name}': value.requires_grad_() for name, value in self.head.items()}
        parameters['student'] = self.student.requires_grad_()
        first, second, third = (feat * mask[:, :, None, None] for mask in masks)
        c, f = self.code(first, second), third

        teacher_cosines = cluster_scores(c, self.teacher)
        weights = torch.exp(teacher_cosines / settings.temperature)
        y = weights / weights.sum(dim=1, keepdim=True)
        partner = without_fixed_points(permutation)
        within = self.term(f, f, y, y, settings.b_within)
        across = self.term(f, f[partner], y, y[partner], settings.b_across)

        student_cosines = cluster_scores(c.detach(), self.student)
        log_prob = student_cosines - torch.logsumexp(student_cosines, dim=1, keepdim=True)
        data = -log_prob.gather(1, teacher_cosines.argmax(dim=1, keepdim=True)).mean()

        # 3C.6: the student here is the one that the optimiser's previous step left.
        self.teacher = settings.momentum * self.teacher + (1 - settings.momentum) * self.student.detach()
        gradients = torch.autograd.grad(within + across + data, list(parameters.values()))
        self.steps += 1
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                self.adam(name, value, gradient, 5e-4 if name == 'student' else 1e-4)
        return {'within': within.item(), 'across': across.item(), 'data': data.item()}

    def adam(self, name: str, value: Tensor, gradient: Tensor, lr: float) -> None:
        """Adam with its default betas and epsilon, no decay; changes ``value`` in place."""
        first, second = self.memory.get(name, (torch.zeros_like(value), torch.zeros_like(value)))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self.memory[name] = first, second
        mean, power = first / (1 - 0.9**self.steps), second / (1 - 0.999**self.steps)
        value -= lr * mean / (power.sqrt() + 1e-8)

    @torch.no_grad()
    def predict(self, feat: Tensor, size: tuple[int, int]) -> Tensor:
        """docs/methods/evaluation.md 6.1, docs/methods/smooseg.md 3C.7: the upsampled code, compared with the teacher.
        Cluster map ``(B, H, W)``.
        """
        return cluster_scores(upsample(self.code(feat, feat), size), self.teacher).argmax(1)
