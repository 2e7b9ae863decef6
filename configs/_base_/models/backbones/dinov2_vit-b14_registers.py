# DINOv2 ViT-B/14 with four registers, frozen; images as for ViT-B/14. The positional embedding is resized by size and
# antialiased, which the class does itself.
_base_ = ['./dinov2_vit-b14.py']
model = dict(
    backbone=dict(
        backbone=dict(type='RegisterViT', num_registers=4),
        checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth'
        '#sha256=73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71',
        position_interpolation=None,
    ),
)
