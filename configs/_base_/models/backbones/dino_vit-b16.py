# DINO ViT-B/16, frozen; everything else as for ViT-S/16.
_base_ = ['./dino_vit-s16.py']
model = dict(
    backbone=dict(
        backbone=dict(arch='deit-base'),
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth',
    ),
)
