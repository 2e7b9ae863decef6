# The demo's own choice, after METHODS.md 4.4, Cityscapes: a faster average for few steps, fewer channels.
hidden_positive_loss = dict(
    type='HiddenPositiveLoss',
    temperature=0.6,
    random_negatives=0.02,
    consistency_weight=0.05,
)
ema_momentum = 0.99
# Steps before the task-specific positives count.
warmup = 50
# At most the number of training scenes.
pool_size = 256
code_channels = 128
