_base_ = [
    './_base_/models/backbones/mobilenet-v2.py',
    './_base_/models/smooseg.py',
    './_base_/losses/smooseg_coco.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/smooseg.py',
    './_base_/default_runtime.py',
]
model = dict(
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.backbone}},
    smoothness_loss={{_base_.smoothness_loss}},
)
train_dataloader = dict(batch_size=16, dataset={{_base_.train_dataset}})
train_cfg = dict(max_iters=500, val_interval=500)
