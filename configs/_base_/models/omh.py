# OMH as this library runs it. No number here is the paper's default: levels and expansion lie in the range that the
# paper reports as best (OMH.md 2); the others are our choices, of which docs/study says what was measured. Weights are
# shares of the host's gradient.
omh_head = dict(
    type='OMHHead',
    num_levels=3,
    expansion=2.0,
    temperature=0.1,
    entropy_weight=0.05,
    centre_start='kmeans',
    weighting='host_gradient',
    match_weight=0.1,
    start_iteration=200,
)
