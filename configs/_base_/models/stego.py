# STEGO's parts (METHODS.md 2.1, 2.4). The experiment adds the backbone and the losses, each from its own file.
model = dict(
    type='STEGO',
    decode_head=dict(type='ProjectionHead'),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    test_cfg=dict(mode='whole'),
)
