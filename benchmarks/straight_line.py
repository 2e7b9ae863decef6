"""STEGO's training step written down straight, in plain torch, the way the hosts' own code goes about it.

Written from docs/methods/features.md 1 and docs/methods/stego.md 3A; for comparison with the library's step, which must
do the same work. Image and neighbour go through the backbone one after the other, in float32; attention is
``softmax(q k^T) v`` with its map in memory, in every block; every correspondence is a 5-D tensor made by ``einsum``;
three optimisers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-10


class Attention(nn.Module):
    """Multi-head attention whose map is a tensor (B, H, n, n)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, C)."""
        batch, number, channels = tokens.shape
        split = self.qkv(tokens).reshape(batch, number, 3, self.heads, channels // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1)) * (channels // self.heads) ** -0.5
        attention = attention.softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, number, channels))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads)
        self.ln2 = nn.LayerNorm(channels, eps=1e-6)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, C)."""
        tokens = tokens + self.attn(self.ln1(tokens))
        return tokens + self.fc2(F.gelu(self.fc1(self.ln2(tokens))))


class VisionTransformer(nn.Module):
    """DINO's transformer (docs/methods/features.md 1) with the state of a ``mmpretrain.VisionTransformer``."""

    def __init__(self, state: Mapping[str, Tensor], heads: int) -> None:
        super().__init__()
        state = {name.replace('ffn.layers.0.0.', 'fc1.').replace('ffn.layers.1.', 'fc2.'): value
                 for name, value in state.items()}  # fmt: skip
        channels, _, self.patch, _ = state['patch_embed.projection.weight'].shape
        hidden = len(state['layers.0.fc1.weight'])
        depth = 1 + max(int(name.split('.')[1]) for name in state if name.startswith('layers.'))
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.empty_like(state['pos_embed']))
        self.patch_embed = nn.ModuleDict(dict(projection=nn.Conv2d(3, channels, self.patch, self.patch)))
        self.layers = nn.ModuleList(Block(channels, heads, hidden) for _ in range(depth))
        self.ln1 = nn.LayerNorm(channels, eps=1e-6)
        self.load_state_dict(state)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of normalised images (B, 3, H, W)."""
        self.eval()
        with torch.no_grad():
            patches = self.patch_embed['projection'](images)
            rows, columns = patches.shape[-2:]
            tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
            tokens = tokens + self.pos_embed
            for layer in self.layers:
                tokens = layer(tokens)
            tokens = self.ln1(tokens)[:, 1:]
            return tokens.reshape(len(images), rows, columns, -1).permute(0, 3, 1, 2).contiguous()


def sample(maps: Tensor, coordinates: Tensor) -> Tensor:
    """docs/methods/stego.md 3A.2: (B, C, H, W) at (B, S, S, 2) -> (B, C, S, S)."""
    grid = coordinates.permute(0, 2, 1, 3)
    return F.grid_sample(maps, grid, mode='bilinear', padding_mode='border', align_corners=True)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of all positions of paired images, (B, h, w, i, j)."""
    first, second = (F.normalize(maps, dim=1, eps=NORM_EPSILON) for maps in (first, second))
    return torch.einsum('nchw,ncij->nhwij', first, second)


def other_images(batch: int, device: torch.device) -> Tensor:
    """docs/methods/stego.md 3A.4: for each image another one of the batch."""
    draw = torch.randperm(batch, device=device)
    draw[draw == torch.arange(batch, device=device)] += 1
    return draw % batch


class StraightStep(nn.Module):
    """The step of docs/methods/stego.md 3A with the weights of a model of this library.

    Args:
        model: A `STEGO` with a vision transformer of mmpretrain, whose weights are copied.
        learning_rate: Of the head; the probes get ten times as much (docs/methods/stego.md 3A.6).
    """

    def __init__(self, model: nn.Module, learning_rate: float = 5e-4) -> None:
        super().__init__()
        wrapped, head = model.backbone.backbone, model.decode_head
        self.backbone = VisionTransformer(wrapped.state_dict(), wrapped.layers[0].attn.num_heads)
        channels, code = head.linear.in_channels, head.linear.out_channels
        self.drop = nn.Dropout2d(head.dropout.p)
        self.linear = nn.Conv2d(channels, code, 1)
        self.nonlinear = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, code, 1))
        self.linear_probe = nn.Conv2d(code, model.num_classes, 1)
        self.clusters = nn.Parameter(model.cluster_probe.centres.detach().clone())
        self.linear.load_state_dict(head.linear.state_dict())
        self.nonlinear.load_state_dict(head.nonlinear.state_dict())
        self.linear_probe.load_state_dict(model.linear_probe.classifier.state_dict())
        self.settings = model.correlation_loss
        self.to(next(model.parameters()).device)
        self.optimizers = [
            torch.optim.Adam([*self.linear.parameters(), *self.nonlinear.parameters()], lr=learning_rate),
            torch.optim.Adam(self.linear_probe.parameters(), lr=10 * learning_rate),
            torch.optim.Adam([self.clusters], lr=10 * learning_rate),
        ]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Dropped features and code of images."""
        features = self.backbone(images)
        code = self.linear(self.drop(features)) + self.nonlinear(self.drop(features))
        return self.drop(features), code

    def losses(self, anchor: Tensor, neighbour: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The five losses of normalised pairs (B, 3, H, W) and labels (B, H, W), named as the library's."""
        settings = self.settings
        features, code = self(anchor)
        features_knn, code_knn = self(neighbour)
        shape = (len(code), settings.feature_samples, settings.feature_samples, 2)
        first = torch.rand(shape, device=code.device) * 2 - 1
        second = torch.rand(shape, device=code.device) * 2 - 1
        f, c = sample(features, first), sample(code, first)
        rand = []
        for _ in range(settings.negative_samples):
            draw = other_images(len(code), code.device)
            f_rand, c_rand = sample(features[draw], second), sample(code[draw], second)
            rand.append(self.term(f, f_rand, c, c_rand, settings.rand_shift))
        knn = self.term(f, sample(features_knn, second), c, sample(code_knn, second), settings.knn_shift)
        own = self.term(f, f, c, c, settings.self_shift)
        return dict(
            loss_self=settings.self_weight * own.mean(),
            loss_knn=settings.knn_weight * knn.mean(),
            loss_rand=settings.rand_weight * torch.cat(rand).mean(),
            loss_cluster_probe=self.cluster_loss(code.detach()),
            loss_linear_probe=self.linear_loss(code.detach(), labels),
        )

    def term(self, f1: Tensor, f2: Tensor, c1: Tensor, c2: Tensor, shift: float) -> Tensor:
        """docs/methods/stego.md 3A.3, the loss map (B, h, w, i, j)."""
        with torch.no_grad():
            closeness = correlation(f1, f2)
            if self.settings.options['pointwise']:
                mean = closeness.mean()
                closeness = closeness - closeness.mean([3, 4], keepdim=True)
                closeness = closeness - closeness.mean() + mean
        lower = 0.0 if self.settings.options['zero_clamp'] else -9999.0
        return -correlation(c1, c2).clamp(min=lower) * (closeness - shift)

    def cluster_loss(self, code: Tensor) -> Tensor:
        """docs/methods/stego.md 3A.5 with hard assignments written as one-hot vectors."""
        inner = torch.einsum('bchw,nc->bnhw', F.normalize(code, dim=1), F.normalize(self.clusters, dim=1))
        chosen = F.one_hot(inner.argmax(1), len(self.clusters)).permute(0, 3, 1, 2).to(inner.dtype)
        return -(chosen * inner).sum(1).mean()

    def linear_loss(self, code: Tensor, labels: Tensor) -> Tensor:
        """docs/methods/stego.md 3A.5: cross-entropy over the labelled pixels."""
        logits = self.linear_probe(code)
        logits = F.interpolate(logits, labels.shape[-2:], mode='bilinear', align_corners=False)
        classes = logits.shape[1]
        logits, labels = logits.permute(0, 2, 3, 1).reshape(-1, classes), labels.reshape(-1)
        valid = (labels >= 0) & (labels < classes)
        return F.cross_entropy(logits[valid], labels[valid])

    def step(self, anchor: Tensor, neighbour: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One step of training."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        losses = self.losses(anchor, neighbour, labels)
        torch.stack(list(losses.values())).sum().backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return losses
