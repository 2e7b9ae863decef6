# DINO ViT-B/16, frozen; everything else as for ViT-S/16.
_base_ = ['./dino_vit-s16.py']
model = dict(
    backbone=dict(
        backbone=dict(arch='deit-base'),
        # Without a known SHA-256: a download is verified by its length.
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth',
    ),
)
