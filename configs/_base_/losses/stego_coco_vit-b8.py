# METHODS.md 4.2, row "Cocostuff27 10/3 vit_base": the setting of the released checkpoint (4.3).
correlation_loss = dict(
    type='STEGOCorrelationLoss',
    self_weight=0.1,
    self_shift=0.12,
    knn_weight=1.0,
    knn_shift=0.2,
    rand_weight=0.1538476246415498,
    rand_shift=1.0,
)
# METHODS.md 4.3, the released checkpoint.
code_channels = 90
