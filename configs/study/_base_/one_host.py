_base_ = './omh.py'
# What schedules of one choice on one host share.
placeholders = dict(host='stego', data='vit-t8_demo', images='the demo scenes')
config = 'configs/omh_{host}_{data}.py'
seeds = [0, 1, 2]
references = ['host', 'control']
_host = dict(name='host', config='configs/{host}_{data}.py', references=[])
_control = dict(name='control', options={{_base_._control_options}})
