_base_ = [
    './_base_/models/backbones/vit-t8_demo.py',
    './_base_/models/stego.py',
    './_base_/losses/stego_demo.py',
    './_base_/datasets/demo.py',
    './_base_/schedules/stego.py',
    './_base_/default_runtime.py',
]
model = dict(
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.backbone}},
    decode_head=dict(channels={{_base_.code_channels}}),
    correlation_loss={{_base_.correlation_loss}},
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type='NeighbourPairs',
        index='data/neighbours/demo_vit-t8_{fingerprint}.npz',
        num_neighbours={{_base_.num_neighbours}},
        dataset={{_base_.train_dataset}},
    ),
)
train_cfg = dict(max_iters=300, val_interval=300)
