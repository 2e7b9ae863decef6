# What plans of one choice on one host share. The control's clusterings learn beside the host, and nothing of them
# reaches the features.
placeholders = dict(host='stego', data='vit-t8_demo', images='the demo scenes')
config = 'configs/omh_{host}_{data}.py'
seeds = [0, 1, 2]
references = ['host', 'control']
_host = dict(name='host', config='configs/{host}_{data}.py', references=[])
_control = dict(name='control', options={'model.omh_head.match_weight': 0, 'model.omh_head.cluster_weight': 0})
