_base_ = [
    './_base_/models/backbones/dino_vit-b8.py',
    './_base_/models/smooseg.py',
    './_base_/losses/smooseg_potsdam.py',
    './_base_/datasets/potsdam3.py',
    './_base_/schedules/smooseg.py',
    './_base_/default_runtime.py',
]
model = dict(
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}},
    backbone={{_base_.backbone}},
    smoothness_loss={{_base_.smoothness_loss}},
)
train_dataloader = dict(batch_size={{_base_.batch_size}}, drop_last=True, dataset={{_base_.train_dataset}})
default_hooks = dict(visualization=dict(backend_args={{_base_.image_backend}}))
