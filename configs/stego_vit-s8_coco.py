_base_ = [
    './_base_/models/stego_vit-s8.py',
    './_base_/models/stego_losses_coco_vit-s8.py',
    './_base_/datasets/coco-stuff27.py',
    './_base_/schedules/stego.py',
    './_base_/default_runtime.py',
]
model = dict(num_classes=27, correlation_loss={{_base_.correlation_loss}})
