"""HP: leveraging hidden positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.losses.local_positives import (
    ATTENTION_SCALE,
    feature_affinity,
    mix_neighbours,
    neighbour_weights,
)
from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.models.utils.head_average import HeadAverage
from omh_mmseg.models.utils.photometric_view import PhotometricView
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, Inputs, pixels, single_view
from omh_mmseg.structures.host_step import HostStep
from omh_mmseg.utils.checks import COUNT, POSITIVE, STEPS, ranges
from omh_mmseg.utils.precision import widened

LOCAL_AFFINITIES = ('attention', 'features')
POOLS = ('agnostic_pool', 'specific_pool')


@MODELS.register_module()
class HiddenPositives(UnsupervisedSegmentor):
    """Contrasts each patch with patches that frozen features, or a slow copy of the head, call alike.

    The reference pools that decide what counts as alike are buffers. `ReferencePoolHook` fills them before training,
    renews the task-specific one on schedule, and sets the length of the training.

    Of the oddities of docs/methods/hp.md 8.9 to 8.11, 8.14 and 8.16 are reproduced: pools of train-mode features, the
    first one of an untrained head (9); the moving average is updated before the optimiser's step (10); ``tau / 0.07``
    scales the loss (11); the view is jittered after the normalisation (14; ``photometric_view=dict(space='image')``
    does it before); decay of biases and clipping of the head alone are set in the config (16). Half-precision masks are
    an option, ``hidden_positive_loss.fp16_masks`` (12). Not reproduced: NaN of images without anchors, which contribute
    0 here (13), and the memory of 40 GB (15).

    Args:
        hidden_positive_loss: Config of `HiddenPositiveLoss`.
        pool_size: Rows of each reference pool.
        ema_momentum: m of ``theta' <- m theta' + (1 - m) theta``, in (0, 1).
        warmup: Steps with ``lambda = 0``.
        total_iterations: T, the step at which lambda would reach 1. None lets `ReferencePoolHook` set it to the length
            of the training.
        local_affinity: What relates neighbours: ``'attention'`` of the backbone's last block, or ``'features'``, the
            cosine of the frozen features, treated alike; for backbones without such attention.
        local_scale: The constant of `neighbour_weights`.
        photometric_view: Options of `PhotometricView`. Where the consistency's weight is 0 no view is made.
        decode_head: See `UnsupervisedSegmentor`. The project head is a linear layer of the code's width.
        **kwargs: See `UnsupervisedSegmentor`.

    Raises:
        ValueError: If a number or name is out of its range, or the backbone has no attention and it is asked for.

    Source: Seong et al., Leveraging Hidden Positives for Unsupervised Semantic Segmentation, CVPR 2023;
    docs/methods/hp.md 2.5, 3B.
    """

    agnostic_pool: Tensor
    specific_pool: Tensor

    PART_DEFAULTS: ClassVar = {**UnsupervisedSegmentor.PART_DEFAULTS, 'photometric_view': dict(type=PhotometricView)}

    @ranges(pool_size='[1, 1048576]', ema_momentum='(0, 1)', warmup=STEPS, total_iterations=COUNT, local_scale=POSITIVE)
    def __init__(
        self,
        hidden_positive_loss: dict[str, Any],
        pool_size: int = 2048,
        ema_momentum: float = 0.99,
        warmup: int = 0,
        total_iterations: int | None = None,
        local_affinity: str = 'attention',
        local_scale: float = ATTENTION_SCALE,
        photometric_view: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if local_affinity not in LOCAL_AFFINITIES:
            raise ValueError(f'local_affinity must be one of {LOCAL_AFFINITIES}; got {local_affinity!r}.')
        if local_affinity == 'attention' and not self.backbone.has_attention:
            raise ValueError(
                f"local_affinity='attention' needs a backbone whose last block has plain multi-head attention, and "
                f"{type(self.backbone.backbone).__name__} has none. Set model.local_affinity='features'."
            )
        self.hidden_positive_loss = MODELS.build(hidden_positive_loss)
        self.warmup = warmup
        self.total_iterations = total_iterations
        self.local_affinity = local_affinity
        self.local_scale = local_scale
        view = PhotometricView(**(photometric_view or {}))
        self.photometric_view = view if self.hidden_positive_loss.consistency_weight > 0 else None
        channels = self.decode_head.channels
        self.project_head = nn.Linear(channels, channels)
        self.ema_head = HeadAverage(self.decode_head, momentum=1 - ema_momentum)
        self.register_buffer('agnostic_pool', torch.zeros(pool_size, self.backbone.out_channels))
        self.register_buffer('specific_pool', torch.zeros(pool_size, channels))
        self._filled_pools: list[tuple[int, int]] = []

    def init_weights(self) -> None:
        """Initialise all parts, the moving average as a copy of the head."""
        super().init_weights()
        self.synchronise_average()

    def synchronise_average(self) -> None:
        """Make the moving average a copy of the head, unless it has begun to move."""
        if int(self.ema_head.steps) == 0:
            self.ema_head.module.load_state_dict(self.decode_head.state_dict())

    @torch.no_grad()
    def begin_run(self) -> None:
        """As every host; empty pools, and a moving average that starts as a copy of the head."""
        super().begin_run()
        for name in POOLS:
            getattr(self, name).zero_()
        self.ema_head.steps.zero_()
        self.synchronise_average()

    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> HostStep:
        """Losses of images (B, 3, H, W).

        Raises:
            ValueError: If the batch holds several views, or the schedule of lambda needs a length that nobody set.
            RuntimeError: If the reference pools are empty.
        """
        images = single_view(inputs, type(self).__name__)
        self._require_pools()
        view = self.other_view(images) if self.photometric_view is not None else None
        all_features, weights = self._features_and_weights(images, view)
        features = all_features[: len(images)]
        codes = self.decode_head(all_features)
        code, *augmented = codes.split(len(images))
        mixed = self.decode_head.drop(mix_neighbours(code, weights))
        ema_code = self._ema_code(features)
        specific_weight = self.specific_weight()
        losses = self.hidden_positive_loss(
            projected=self.project(code),
            mixed=self.project(mixed),
            augmented=self.project(augmented[0]) if augmented else None,
            # docs/methods/features.md 2.2: positives are searched in features with a channel dropout of their own.
            features=self.decode_head.drop(features),
            ema_code=ema_code,
            agnostic_pool=self.agnostic_pool,
            specific_pool=self.specific_pool,
            specific_weight=specific_weight,
        )
        losses['hp_specific_weight'] = code.new_full((), specific_weight, dtype=torch.float32)
        return HostStep(losses, codes, code)

    def after_losses(self) -> None:
        """The moving average follows the head as the optimiser left it in the step before (docs/methods/hp.md 8.10)."""
        self.ema_head.update_parameters(self.decode_head)

    def project(self, code: Tensor) -> Tensor:
        """Project head on a code (B, D, h, w), of the same shape."""
        return F.conv2d(code, self.project_head.weight[:, :, None, None], self.project_head.bias)

    def specific_weight(self) -> float:
        """Lambda of this step: 0 up to ``warmup``, then linear in the step, to 1 at ``total_iterations``.

        Raises:
            ValueError: If the length is needed and not set, or not longer than the warm-up.
        """
        step = self.step
        if step <= self.warmup:
            return 0.0
        if self.total_iterations is None or self.total_iterations <= self.warmup:
            raise ValueError(
                f'After {self.warmup} steps of warm-up lambda grows until step total_iterations, which is '
                f"{self.total_iterations}. Add dict(type='ReferencePoolHook', ...) to custom_hooks, which takes it "
                'from train_cfg.max_iters, or set model.total_iterations above model.warmup.'
            )
        return min(1.0, (step - self.warmup) / (self.total_iterations - self.warmup))

    @property
    def first_steps(self) -> dict[str, int]:
        """The task-specific positives begin after the warm-up."""
        return super().first_steps | {'model.warmup': self.warmup + 1}

    @torch.no_grad()
    def pool_vectors(self, inputs: Inputs | dict[str, Inputs], names: Sequence[str] = POOLS) -> dict[str, Tensor]:
        """Rows for reference pools: one random patch of each image, with the dropouts of the present mode.

        Args:
            inputs: Normalised images (B, 3, H, W).
            names: Pools: ``'agnostic_pool'`` of dropped features, ``'specific_pool'`` of the dropped code of the moving
                average. Each draws patches of its own.

        Returns:
            By name, unit rows (B, C) or (B, D) in float32 or wider.

        Source: docs/methods/hp.md 3B.4.
        """
        features = self.extract_feat(single_view(inputs, type(self).__name__))
        vectors = {}
        for name in names:
            maps = self.decode_head.drop(features) if name == 'agnostic_pool' else self._ema_code(features)
            patches = torch.randint(maps.shape[-2] * maps.shape[-1], (len(maps),), device=maps.device)
            rows = maps.flatten(2)[torch.arange(len(maps), device=maps.device), :, patches]
            vectors[name] = F.normalize(widened(rows), dim=1)
        return vectors

    def pools_are_filled(self) -> bool:
        """Whether both reference pools hold vectors."""
        return all(bool(getattr(self, name).any(1).all()) for name in POOLS)

    def _require_pools(self) -> None:
        pools = [getattr(self, name) for name in POOLS]
        written = [(id(pool), pool._version) for pool in pools]
        # Asked again only after somebody wrote to them: the answer has to be waited for.
        if written == self._filled_pools:
            return
        if not all(bool(pool[0].any()) for pool in pools):
            raise RuntimeError(
                "HP's reference pools are empty. Add dict(type='ReferencePoolHook', renew_interval=...) to "
                'custom_hooks, which fills them before training.'
            )
        self._filled_pools = written

    @property
    def frozen_fields(self) -> dict[str, str]:
        """Features and weights of local positives."""
        return dict(features='', weights=f'{self.local_affinity}-{self.local_scale:g}')

    @property
    def frozen_types(self) -> dict[str, torch.dtype]:
        """The weights are kept in float32."""
        return dict(weights=torch.float32)

    def freeze(self, images: Tensor) -> FrozenInputs:
        """Features and weights of local positives."""
        features, weights = self._features_and_weights(images)
        return FrozenInputs(features, (images.shape[-2], images.shape[-1]), dict(weights=weights))

    def _features_and_weights(self, images: Inputs, view: Inputs | None = None) -> tuple[Tensor, Tensor]:
        """Frozen features of the images and then of the view, and the weights of local positives of the images."""
        if isinstance(images, FrozenInputs):
            features, weights = self.extract_feat(images), images.extra('weights', type(self).__name__)
            return features if view is None else torch.cat([features, self.extract_feat(view)]), weights
        all_images = images if view is None else torch.cat([images, pixels(view)])
        if self.local_affinity == 'attention':
            count = len(images)
            features, _, attention = self.backbone.taps(all_images, keys=False, attention='mean', attended=count)
            extra = self.backbone.num_extra_tokens
            grid = (features.shape[-2], features.shape[-1])
            return features, neighbour_weights(attention[:, extra:, extra:], grid, self.local_scale)
        features = self.extract_feat(all_images)
        grid = (features.shape[-2], features.shape[-1])
        # One image at a time: the maps of a batch would be larger than everything else.
        each = features[: len(images)].split(1)
        return features, torch.cat([neighbour_weights(feature_affinity(one), grid, self.local_scale) for one in each])

    @torch.no_grad()
    def _ema_code(self, features: Tensor) -> Tensor:
        return self.decode_head.drop(self.ema_head(features))
