# Steps of the authors' COCO-Stuff-27 run (METHODS.md 4.5).
_base_ = ['./smooseg.py']
train_cfg = dict(max_iters=8000)
