# DINOv2 ViT-S/14 with four registers, frozen; everything else as for ViT-B/14 with registers.
_base_ = ['./dinov2_vit-b14_registers.py']
model = dict(
    backbone=dict(
        backbone=dict(arch='dinov2-small'),
        checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth'
        '#sha256=f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb',
    ),
)
