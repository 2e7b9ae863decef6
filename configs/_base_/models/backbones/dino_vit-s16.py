# DINO ViT-S/16, frozen; everything else as for ViT-S/8.
_base_ = ['./dino_vit-s8.py']
model = dict(
    data_preprocessor=dict(size_divisor=16, test_cfg=dict(size_divisor=16)),
    backbone=dict(
        backbone=dict(patch_size=16),
        # Without a known SHA-256: a download is verified by its length.
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth',
    ),
)
