# HP's parts (METHODS.md 2.1, 2.4, 2.5). The experiment adds the backbone and, from a file of its own, the numbers.
model = dict(
    type='HiddenPositives',
    decode_head=dict(type='ProjectionHead'),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    test_cfg=dict(mode='whole'),
)
