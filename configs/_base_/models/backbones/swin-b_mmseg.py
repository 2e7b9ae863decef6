# Swin-B as in mmseg, frozen; everything else as for Swin-T.
_base_ = ['./swin-t_mmseg.py']
model = dict(
    backbone=dict(
        backbone=dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
        # Without a known SHA-256: a download is verified by its length.
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
        'swin_base_patch4_window7_224.pth',
    ),
)
