_base_ = [
    './_base_/models/stego_vit-t8_demo.py',
    './_base_/models/stego_losses_demo.py',
    './_base_/datasets/demo.py',
    './_base_/schedules/stego.py',
    './_base_/default_runtime.py',
]
model = dict(num_classes={{_base_.num_classes}}, correlation_loss={{_base_.correlation_loss}})
train_dataloader = dict(batch_size=8, dataset=dict(index='data/neighbours/demo_vit-t8_{fingerprint}.npz'))
train_cfg = dict(max_iters=300, val_interval=300)
