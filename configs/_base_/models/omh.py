# OMH as this library runs it. No number here is the paper's default: levels and expansion lie in the range that the
# paper reports as best (OMH.md 2); tau, the weights and the start were measured (docs/results.md).
omh_head = dict(
    type='OMHHead',
    num_levels=3,
    expansion=2.0,
    temperature=0.1,
    entropy_weight=0.05,
    match_weight=0.03,
    start_iteration=200,
)
