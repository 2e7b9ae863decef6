"""PriMaPs' prototypes: running ones that learn, and momentum ones that follow and predict."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from omh_mmseg.models.utils.step_counter import StepCounter
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import COUNT, SHARE, SIZE, ranges
from omh_mmseg.utils.precision import wide_dtype

COPIES = 2
"""So many updates are plain copies."""


@MODELS.register_module()
class MomentumPrototypes(BaseModule):
    r"""K prototypes with gains on a code that keeps its length, twice.

    The logits of the running ones :math:`\theta_R = (v, g)` are :math:`l_k = g_k \langle v_k / \|v_k\|, f \rangle`;
    those of the momentum ones :math:`\theta_M = (v', g')`, which assign and predict, likewise. Update n sets
    :math:`\theta_M \leftarrow \theta_R` for n = 1, 2, and from then on

    .. math:: \theta_M \leftarrow d\, \theta_M + (1 - d)\, \theta_R, \quad d = \min(1 - 1/n, decay)

    on v and g apart. As in the other hosts' place for it, this is the ``cluster_probe`` of a segmentor.

    Args:
        in_channels: C of the code.
        num_classes: K.
        extra_clusters: Prototypes beyond the K; one-to-one matching leaves as many without a class.
        decay: Largest d.
        interval: Training steps between updates; the first is after step ``interval``, counted from 0.
        init_cfg: See mmengine.

    Attributes:
        directions: v, parameter (K, C).
        gains: g, parameter (K).
        average: v' and g' side by side, buffer (K, C + 1).
        centres: ``g' v' / |v'|``, buffer (K, C): scores are dot products with these, whose length counts.
        updates: n, buffer.
        started: Whether the prototypes are more than random, buffer.

    Source: docs/methods/primaps.md 5, 5.2.
    """

    average: Tensor
    centres: Tensor
    updates: Tensor
    started: Tensor
    lengths_count = True
    TRAINED_BY: ClassVar = 'PriMaPs'

    @ranges(in_channels=SIZE, num_classes=SIZE, extra_clusters='[0, 16384]', decay=SHARE, interval=COUNT)
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        extra_clusters: int = 0,
        decay: float = 0.98,
        interval: int = 10,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.decay, self.interval = decay, interval
        clusters = num_classes + extra_clusters
        self.directions = nn.Parameter(F.normalize(torch.randn(clusters, in_channels), dim=1))
        self.gains = nn.Parameter(torch.ones(clusters))
        self.register_buffer('average', torch.zeros(clusters, in_channels + 1))
        self.register_buffer('centres', torch.zeros(clusters, in_channels))
        self.register_buffer('updates', torch.zeros((), dtype=torch.long))
        self.register_buffer('started', torch.tensor(False))
        self._counter = StepCounter()
        self._copy()

    def forward(self, code: Tensor) -> Tensor:
        """Logits (B, K, h, w) of the momentum prototypes on a code (B, C, h, w); no gradient to them."""
        return _products(code, self.centres)

    def running(self, code: Tensor) -> Tensor:
        """Logits (B, K, h, w) of the running prototypes on a code (B, C, h, w), with gradient to both."""
        return _products(code, _rows(self.directions, self.gains))

    @property
    def first_steps(self) -> dict[str, int]:
        """The momentum prototypes begin to follow."""
        return {'model.cluster_probe.interval': self.interval + 1}

    def loss(self, code: Tensor) -> dict[str, Tensor]:
        """Nothing: the host's own loss trains them."""
        return {}

    @torch.no_grad()
    def start(self, directions: Tensor) -> None:
        """Begin from directions (K, C) with gains of 1, both kinds alike."""
        self.directions.copy_(directions)
        self.gains.fill_(1)
        self._copy()
        self.updates.zero_()
        self.started.fill_(True)

    def begin_run(self) -> None:
        """Count the updates of a new run from 0; both kinds of prototypes stay, as a closing refit left them."""
        self.updates.zero_()
        if not torch.allclose(self.centres, _rows(self.average[:, :-1], self.average[:, -1]), rtol=1e-4, atol=1e-6):
            self.average.copy_(torch.cat([self.centres, self.centres.norm(dim=1, keepdim=True)], dim=1))

    @torch.no_grad()
    def follow(self, steps: int) -> None:
        """Update at the beginning of a step, if one was due after the step before it.

        Args:
            steps: Training steps made so far.
        """
        last = steps - 1
        if last > 0 and last % self.interval == 0:
            self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Let the momentum prototypes take in the running ones."""
        number = self._counter.read(self.updates) + 1
        self._counter.advance(self.updates)
        share = 0.0 if number <= COPIES else min(1 - 1 / number, self.decay)
        if share == 0:
            self._copy()
            return
        self.average.mul_(share).add_(self._state(), alpha=1 - share)
        self._renew_centres()

    def _state(self) -> Tensor:
        return torch.cat([self.directions.detach(), self.gains.detach()[:, None]], dim=1)

    @torch.no_grad()
    def _copy(self) -> None:
        self.average.copy_(self._state())
        self._renew_centres()

    def _renew_centres(self) -> None:
        self.centres.copy_(_rows(self.average[:, :-1], self.average[:, -1]))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Prototypes of this class, or the centres of another host, which prototypes then begin from."""
        given = state_dict.get(f'{prefix}centres')
        if given is not None and not any(f'{prefix}{name}' in state_dict for name in ('directions', 'average')):
            fits = given.shape == self.directions.shape
            if fits:
                self.start(given)
            own = {prefix + name: value.clone() for name, value in self.state_dict().items()}
            state_dict = {key: value for key, value in state_dict.items() if not key.startswith(prefix)} | own
            state_dict |= {} if fits else {f'{prefix}centres': given}
        super()._load_from_state_dict(state_dict, prefix, *args)


def _rows(directions: Tensor, gains: Tensor) -> Tensor:
    return gains[:, None] * F.normalize(directions, dim=1)


def _products(code: Tensor, rows: Tensor) -> Tensor:
    wide = wide_dtype(code)
    with torch.autocast(code.device.type, enabled=False):
        return F.conv2d(code.to(wide), rows.to(wide)[:, :, None, None])
