# Weights as for ViT-S/8. The shifts are ours and come from the features of the shipped backbone, without labels
# (tools/analysis_tools/feature_cosines.py): within an image and to a neighbour half of the cosines exceed 0.55, between
# random images one in twenty exceeds about 0.9. With DINO's shifts, made for lower cosines, almost every pair attracts.
correlation_loss = dict(
    type='STEGOCorrelationLoss',
    self_weight=0.67,
    self_shift=0.55,
    knn_weight=0.25,
    knn_shift=0.55,
    rand_weight=0.63,
    rand_shift=0.88,
)
# METHODS.md 2.3, the default of the authors' config file.
code_channels = 70
