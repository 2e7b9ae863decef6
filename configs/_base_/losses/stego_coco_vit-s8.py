# METHODS.md 4.2, row "Cocostuff27 vit small 1/31/22": the setting that reproduces COCO-Stuff-27 with ViT-S/8 (4.3).
correlation_loss = dict(
    type='STEGOCorrelationLoss',
    self_weight=0.67,
    self_shift=0.08,
    knn_weight=0.25,
    knn_shift=0.02,
    rand_weight=0.63,
    rand_shift=0.66,
)
# METHODS.md 2.3, the default of the authors' config file.
code_channels = 70
