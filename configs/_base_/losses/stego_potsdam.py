# METHODS.md 4.3: the setting of the released ViT-S/8 checkpoint, whose rand_shift is not that of the row of 4.2 (8,
# item 2).
correlation_loss = dict(
    type='STEGOCorrelationLoss',
    self_weight=0.67,
    self_shift=0.08,
    knn_weight=0.25,
    knn_shift=0.02,
    rand_weight=0.63,
    rand_shift=0.76,
)
# METHODS.md 4.3, the released checkpoint.
code_channels = 70
