# METHODS.md 4.2, row "Cityscapes 10/3", and `pointwise` off: the setting of the released ViT-B/8 checkpoint (4.3).
correlation_loss = dict(
    type='STEGOCorrelationLoss',
    self_weight=1.0,
    self_shift=0.45828472207,
    knn_weight=0.577453483136995,
    knn_shift=0.1754346515479633,
    rand_weight=0.9058762625226623,
    rand_shift=0.31361241889448443,
    pointwise=False,
)
# METHODS.md 4.3, the released checkpoint.
code_channels = 100
