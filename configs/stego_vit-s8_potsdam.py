_base_ = [
    './_base_/models/backbones/dino_vit-s8.py',
    './_base_/models/stego.py',
    './_base_/losses/stego_potsdam.py',
    './_base_/datasets/potsdam3.py',
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
    batch_size={{_base_.batch_size}},
    dataset=dict(
        type='NeighbourPairs',
        index='data/neighbours/potsdam3_vit-s8_{fingerprint}.npz',
        num_neighbours={{_base_.num_neighbours}},
        dataset={{_base_.train_dataset}},
    ),
)
default_hooks = dict(visualization=dict(backend_args={{_base_.image_backend}}))
