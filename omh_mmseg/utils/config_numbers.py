"""Ranges of numbers and switches that mmengine's own parts read from a config, most of which it takes as they are."""

from __future__ import annotations

from omh_mmseg.utils.checks import COUNT, POSITIVE, STEPS, WEIGHT, options_of

NEVER_OR_COUNT = '[-1, inf)'
_TABLE: dict[str, tuple[str, str]] = {
    'resume': ('bool', ''),
    'compile': ('bool | dict', ''),
    'find_unused_parameters': ('bool', ''),
    'train_cfg.max_iters': ('int', COUNT),
    'train_cfg.max_epochs': ('int', COUNT),
    'train_cfg.val_interval': ('int', COUNT),
    'train_cfg.val_begin': ('int', STEPS),
    'randomness.seed': ('int | None', f'[0, {2**32 - 1}]'),
    'optim_wrapper.accumulative_counts': ('int', COUNT),
    'optim_wrapper.clip_grad.max_norm': ('float', POSITIVE),
    'optim_wrapper.clip_grad.clip_value': ('float', POSITIVE),
    'optim_wrapper.optimizer.lr': ('float', WEIGHT),
    'optim_wrapper.optimizer.weight_decay': ('float', WEIGHT),
    'optim_wrapper.optimizer.betas': ('Sequence[float]', '[0, 1)'),
    'default_hooks.checkpoint.interval': ('int', NEVER_OR_COUNT),
    'default_hooks.checkpoint.max_keep_ckpts': ('int', NEVER_OR_COUNT),
    'default_hooks.checkpoint.save_begin': ('int', STEPS),
    'default_hooks.logger.interval': ('int', COUNT),
    'default_hooks.visualization.interval': ('int', COUNT),
}
for _loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
    _TABLE |= {
        f'{_loader}.batch_size': ('int | None', COUNT),
        f'{_loader}.num_workers': ('int', STEPS),
        f'{_loader}.prefetch_factor': ('int | None', COUNT),
        f'{_loader}.num_batch_per_epoch': ('int | None', COUNT),
    }
OPTIONS = options_of(
    {key: annotation for key, (annotation, _) in _TABLE.items()},
    {key: interval for key, (_, interval) in _TABLE.items() if interval},
)
"""What each accepts, by its full key."""
