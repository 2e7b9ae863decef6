_base_ = [
    './_base_/models/stego_vit-s8.py',
    './_base_/models/stego_losses_vit-s8.py',
    './_base_/datasets/coco-stuff27.py',
    './_base_/schedules/stego.py',
    './_base_/default_runtime.py',
]
model = dict(num_classes={{_base_.num_classes}}, correlation_loss={{_base_.correlation_loss}})
train_dataloader = dict(dataset=dict(index='data/neighbours/coco-stuff27_vit-s8_{fingerprint}.npz'))
