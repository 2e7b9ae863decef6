# OMHHead's defaults of what the schedules vary, said by all runs with OMH: a row that asks for a default, such as
# `tau 0.1`, is then the run of `OMH`, which --runs-dir keeps once.
options = {
    'model.omh_head.num_levels': 3,
    'model.omh_head.expansion': 2.0,
    'model.omh_head.temperature': 0.1,
    'model.omh_head.plan.entropy_weight': 0.05,
    'model.omh_head.match.loss_weight': 0.1,
    # Rows that show a refit make it after the training.
    'default_hooks.closing_refit.clusterings': 'none',
}
# The control: OMH's clusterings learn beside the host, and nothing of them reaches the features.
_control_options = {'model.omh_head.match': None, 'model.omh_head.cluster': None}
