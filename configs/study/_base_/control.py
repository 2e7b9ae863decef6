# The control: OMH's clusterings learn beside the host, and nothing of them reaches the features.
_control_options = {'model.omh_head.match': None, 'model.omh_head.cluster': None}
