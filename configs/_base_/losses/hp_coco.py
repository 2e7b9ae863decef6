# METHODS.md 4.4, COCO-Stuff-27, whatever the backbone.
hidden_positive_loss = dict(
    type='HiddenPositiveLoss',
    temperature=0.8,
    random_negatives=0.02,
    consistency_weight=0.05,
)
ema_momentum = 0.99
# Steps before the task-specific positives count.
warmup = 1000
pool_size = 2048
code_channels = 512
