_base_ = ['./hp_vit-t8_demo.py', './_base_/models/omh.py']
# As in STEGO's twin for these scenes.
model = dict(
    omh_head=dict(
        _base_.omh_head,
        centre_update='momentum',
        match_weight=0.1,
        start_iteration=100,
        direction='both',
    ),
)
