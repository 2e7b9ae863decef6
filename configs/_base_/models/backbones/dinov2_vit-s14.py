# DINOv2 ViT-S/14, frozen; everything else as for ViT-B/14.
_base_ = ['./dinov2_vit-b14.py']
model = dict(
    backbone=dict(
        backbone=dict(arch='dinov2-small'),
        checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth'
        '#sha256=b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9',
    ),
)
