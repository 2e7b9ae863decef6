# METHODS.md 4.4, Potsdam-3, whatever the backbone. All patches are negatives, and there is no second view.
hidden_positive_loss = dict(
    type='HiddenPositiveLoss',
    temperature=0.4,
    random_negatives=1.0,
    consistency_weight=0.0,
)
ema_momentum = 0.999
# Steps before the task-specific positives count.
warmup = 100
pool_size = 1024
code_channels = 256
