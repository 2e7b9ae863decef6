# Batch and steps of the released ViT-B/8 checkpoints of COCO-Stuff-27 and Cityscapes (METHODS.md 4.3).
_base_ = ['./stego.py']
batch_size = 32
train_cfg = dict(max_iters=7000)
