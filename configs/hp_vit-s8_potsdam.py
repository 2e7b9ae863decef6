_base_ = [
    './_base_/models/backbones/dino_vit-s8.py',
    './_base_/models/hp.py',
    './_base_/losses/hp_potsdam.py',
    './_base_/datasets/potsdam3.py',
    './_base_/schedules/hp_potsdam.py',
    './_base_/default_runtime.py',
]
model = dict(
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.backbone}},
    decode_head=dict(channels={{_base_.code_channels}}),
    hidden_positive_loss={{_base_.hidden_positive_loss}},
    pool_size={{_base_.pool_size}},
    ema_momentum={{_base_.ema_momentum}},
    warmup={{_base_.warmup}},
)
train_dataloader = dict(batch_size={{_base_.batch_size}}, drop_last=True, dataset={{_base_.train_dataset}})
default_hooks = dict(visualization=dict(backend_args={{_base_.image_backend}}))
