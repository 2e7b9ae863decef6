# The control: OMH's clusterings learn beside the host, and nothing of them reaches the features.
_control_options = {'model.omh_head.match_weight': 0, 'model.omh_head.cluster_weight': 0}
