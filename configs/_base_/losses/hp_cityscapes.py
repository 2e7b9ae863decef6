# METHODS.md 4.4, Cityscapes-27, whatever the backbone.
hidden_positive_loss = dict(
    type='HiddenPositiveLoss',
    temperature=0.6,
    random_negatives=0.02,
    consistency_weight=0.05,
)
ema_momentum = 0.999
# Steps before the task-specific positives count.
warmup = 50
pool_size = 2048
code_channels = 512
