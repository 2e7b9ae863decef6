_base_ = [
    './_base_/models/backbones/mobilenet-v2.py',
    './_base_/models/hp.py',
    './_base_/losses/hp_cityscapes.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/hp_folder.py',
    './_base_/default_runtime.py',
]
model = dict(
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.backbone}},
    decode_head=dict(channels={{_base_.code_channels}}),
    hidden_positive_loss={{_base_.hidden_positive_loss}},
    # At most the number of training images.
    pool_size=128,
    ema_momentum={{_base_.ema_momentum}},
    warmup={{_base_.warmup}},
    # A convolutional network has no attention.
    local_affinity='features',
)
train_dataloader = dict(batch_size=8, dataset={{_base_.train_dataset}})
