"""HP derived anew from docs/methods, in one straight line of plain torch and none of the package's functions.

The examiner of the HP host. Maps of all pairs of patches are held at once and differentiated automatically; moving
average, pools, clipping and AdamW are written out. Frozen features, attention, the images of the second view and every
random draw come from outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from straight_line_stego import cluster_scores, conv1x1, unit, upsample
from torch import Tensor

Vectors = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """The numbers of docs/methods/hp.md 4.4 that one experiment sets."""

    num_classes: int
    tau: float
    alpha: float
    rho: float
    m: float
    warmup: int
    total: int
    pool_size: int
    renew_interval: int
    epoch: int
    clip: float
    reweighting: bool = True


@dataclass(frozen=True)
class Draws:
    """All randomness of one step.

    Attributes:
        code: Dropout factors of the two branches, ``(B, C)`` each.
        augmented: The same for the second view.
        mixed: Factors of the mixed code, ``(B, D)``.
        ema: Factors of the two branches of the moving average, ``(B, C)`` each, and of its code, ``(B, D)``.
        features: Factors of the features, ``(B, C)``.
        uniform: U, ``(P, B P)``.
    """

    code: tuple[Tensor, Tensor]
    augmented: tuple[Tensor, Tensor]
    mixed: Tensor
    ema: tuple[Tensor, Tensor, Tensor]
    features: Tensor
    uniform: Tensor


def spread(mask: Tensor) -> Tensor:
    return mask[:, :, None, None]


def rows(maps: Tensor) -> Tensor:
    """All patches of the batch, image by image: ``(B, C, h, w)`` to ``(B h w, C)``."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def branches(head: Vectors, first: Tensor, second: Tensor) -> Tensor:
    """docs/methods/features.md 2.1 on the two dropped inputs."""
    hidden = conv1x1(second, head['hidden.weight'], head['hidden.bias']).clamp(min=0)
    return conv1x1(first, head['linear.weight'], head['linear.bias']) + conv1x1(
        hidden, head['out.weight'], head['out.bias']
    )


def local_weights(attention: Tensor, height: int, width: int) -> Tensor:
    """docs/methods/hp.md 3B.6: ``(B, n, n)`` attention of patches to the weights, divided by the number of neighbours.
    """
    ordered = attention.sort(dim=2).values
    size = height * width

    def quantile(share: float) -> Tensor:
        place = share * (size - 1)
        low = int(place)
        return (ordered[..., low] + (place - low) * (ordered[..., low + 1] - ordered[..., low]))[..., None]

    low, high = quantile(0.1), quantile(0.9)
    clipped = torch.where(attention < low, low, torch.where(attention > high, high, attention))
    even = 28 * clipped.exp() / clipped.exp().sum(2, keepdim=True)
    even = even * (even >= even.mean(2, keepdim=True))
    row, column = torch.arange(size) // width, torch.arange(size) % width
    near = ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
    return even * near / near.sum(1)[:, None]


def alike(vectors: Tensor, pool: Tensor) -> Tensor:
    """docs/methods/hp.md 3B.5: whether a pair is positive, ``(N, N)``."""
    threshold = (vectors @ pool.T).amax(1)
    cosine = vectors @ vectors.T
    pairs = (cosine > threshold[:, None]) | (cosine > threshold[None, :])
    pairs.fill_diagonal_(False)
    return pairs


def contrast(
    view: Tensor, agnostic: Tensor, specific: Tensor, lam: float, uniform: Tensor, settings: Settings
) -> Tensor:
    """docs/methods/hp.md 3B.5 to 3B.7 for one of z and z_mix."""
    patches, size = uniform.shape
    logits = view @ view.T / settings.tau
    inside = agnostic | (uniform.repeat(size // patches, 1) < settings.rho)
    inside.fill_diagonal_(False)
    weight = agnostic + lam * specific.to(view.dtype)
    total = view.new_zeros(())
    for image in range(size // patches):
        here = slice(image * patches, (image + 1) * patches)
        kept = agnostic[here].any(1)
        if not kept.any():
            continue
        ell, w = logits[here][kept], weight[here][kept]
        log_sum = torch.log((ell.exp() * inside[here][kept]).sum(1, keepdim=True))
        g = (w * (ell - log_sum)).sum(1) / w.sum(1)
        r = w.sum(1) / w.sum(1).mean() if settings.reweighting else 1
        total = total - (settings.tau / 0.07 * g * r).mean()
    return total / (size // patches)


@dataclass
class StraightLineHP:
    """Weights, their average, pools, AdamW's memory and the one training step.

    Attributes:
        settings: Numbers of the experiment.
        head: ``linear.weight``, ``linear.bias``, ``hidden.weight``, ``hidden.bias``, ``out.weight``, ``out.bias``.
        project: ``weight`` and ``bias`` of P.
        linear_probe: ``weight`` and ``bias``.
        cluster_probe: ``centres``.
    """

    settings: Settings
    head: Vectors
    project: Vectors
    linear_probe: Vectors
    cluster_probe: Vectors
    average: Vectors = field(default_factory=dict)
    pool_ag: Tensor = field(default_factory=lambda: torch.zeros(0))
    pool_sp: Tensor = field(default_factory=lambda: torch.zeros(0))
    steps: int = 0
    memory: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.average = {name: value.clone() for name, value in self.head.items()}

    def agnostic_rows(self, feat: Tensor, mask: Tensor, patches: Tensor) -> Tensor:
        """docs/methods/hp.md 3B.4: one patch of each image's dropped features, normalised."""
        return unit((feat * spread(mask)).flatten(2)[torch.arange(len(feat)), :, patches], 1e-12)

    def specific_rows(self, feat: Tensor, masks: tuple[Tensor, Tensor, Tensor], patches: Tensor) -> Tensor:
        """The same of the averaged head's code."""
        return unit(self.average_code(feat, masks).flatten(2)[torch.arange(len(feat)), :, patches], 1e-12)

    def average_code(self, feat: Tensor, masks: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        first, second, out = map(spread, masks)
        return branches(self.average, feat * first, feat * second) * out

    def renews(self) -> bool:
        """docs/methods/hp.md 3B.4: whether the task-specific pool is rebuilt before the next step."""
        i = self.steps % self.settings.epoch
        return i != 0 and i % self.settings.renew_interval == 0

    def train_step(
        self, feat: Tensor, feat_aug: Tensor | None, attention: Tensor, labels: Tensor, draws: Draws
    ) -> dict[str, float]:
        """One batch (docs/methods/hp.md 3B.2 to 3B.10).

        Args:
            feat: Frozen features of the images, ``(B, C, h, w)``.
            feat_aug: Those of the second view; None where alpha is 0.
            attention: Of the last block, between patches, mean over heads, ``(B, n, n)``.
            labels: ``(B, H, W)``, anything outside ``[0, K)`` is ignored.
            draws: The step's randomness.

        Returns:
            The losses before the update: ``contrast``, ``consistency``, ``linear``, ``cluster``; and ``lambda``.
        """
        settings, (height, width) = self.settings, feat.shape[2:]
        groups = dict(head=self.head, project=self.project, linear=self.linear_probe, cluster=self.cluster_probe)
        parameters = {
            f'{part}.{name}': value.requires_grad_()
            for part, values in groups.items()
            for name, value in values.items()
        }
        s = branches(self.head, *(feat * spread(mask) for mask in draws.code))
        f_hat = unit(rows(feat * spread(draws.features)), 1e-12)
        with torch.no_grad():
            s_hat = unit(rows(self.average_code(feat, draws.ema)), 1e-12)
            for name, value in self.average.items():
                value.copy_(settings.m * value + (1 - settings.m) * self.head[name])
        gathered = torch.einsum('bpq,bdq->bdp', local_weights(attention, height, width), s.flatten(2))
        s_mix = gathered.unflatten(2, (height, width)) * spread(draws.mixed)

        def projected(code: Tensor) -> Tensor:
            return unit(rows(code) @ self.project['weight'].T + self.project['bias'], 1e-12)

        z, z_mix = projected(s), projected(s_mix)
        it = self.steps
        lam = 0.0 if it <= settings.warmup else (it - settings.warmup) / (settings.total - settings.warmup)
        agnostic, specific = alike(f_hat, self.pool_ag), alike(s_hat, self.pool_sp)
        terms = [contrast(view, agnostic, specific, lam, draws.uniform, settings) for view in (z, z_mix)]
        losses = dict(contrast=sum(terms) / 2)
        if feat_aug is not None:
            z_aug = projected(branches(self.head, *(feat_aug * spread(mask) for mask in draws.augmented)))
            losses['consistency'] = settings.alpha * (z - z_aug + 1e-6).pow(2).sum(1).sqrt().mean()
        logits = conv1x1(s.detach(), self.linear_probe['weight'], self.linear_probe['bias'])
        logits = upsample(logits, tuple(labels.shape[-2:]))
        log_prob = logits - torch.logsumexp(logits, dim=1, keepdim=True)
        known = (labels >= 0) & (labels < settings.num_classes)
        losses['linear'] = -log_prob.permute(0, 2, 3, 1)[known].gather(1, labels[known][:, None]).mean()
        losses['cluster'] = -cluster_scores(s.detach(), self.cluster_probe['centres']).amax(1).mean()
        gradients = dict(zip(parameters, torch.autograd.grad(sum(losses.values()), list(parameters.values()))))

        self.steps += 1
        norm = torch.stack([gradient.pow(2).sum() for name, gradient in gradients.items() if name.startswith('head.')])
        shrink = (settings.clip / (norm.sum().sqrt() + 1e-6)).clamp(max=1)
        rates = dict(head=5e-4, project=5e-4, linear=1e-3, cluster=5e-3)
        with torch.no_grad():
            for name, value in parameters.items():
                part = name.split('.')[0]
                gradient = gradients[name] * (shrink if part == 'head' else 1)
                self.adamw(name, value, gradient, rates[part], 0.1 if part == 'head' else 0.0)
        return {name: loss.item() for name, loss in losses.items()} | {'lambda': lam, 'norm': norm.sum().sqrt().item()}

    def adamw(self, name: str, value: Tensor, gradient: Tensor, lr: float, decay: float) -> None:
        """AdamW with its default betas and epsilon; changes ``value`` in place."""
        first, second = self.memory.get(name, (torch.zeros_like(value), torch.zeros_like(value)))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self.memory[name] = first, second
        mean, power = first / (1 - 0.9**self.steps), second / (1 - 0.999**self.steps)
        value *= 1 - lr * decay
        value -= lr * mean / (power.sqrt() + 1e-8)
