# DINO ViT-B/8, frozen (docs/methods/features.md 1.1); everything else as for ViT-S/8.
_base_ = ['./dino_vit-s8.py']
model = dict(
    backbone=dict(
        backbone=dict(arch='deit-base'),
        # Without a known SHA-256: a download is verified by its length.
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth',
    ),
)
