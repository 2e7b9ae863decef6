# SmooSeg's parts (METHODS.md 2.1, 2.3, 2.6, 3C). The experiment adds the backbone and the shifts, each from its own
# file. There is no linear probe, and so no use of labels in the training; for reports, add one:
# --cfg-options model.linear_probe.type=LinearProbe
model = dict(
    type='SmooSeg',
    decode_head=dict(type='ProjectionHead', channels=64, act_cfg=dict(type='SiLU'), dropout_ratio=0.2),
    cluster_probe=dict(type='PrototypeHead', temperature=0.1, momentum=0.998),
    test_cfg=dict(mode='whole'),
)
