# VIS-GDINO, Swin-B (384, ImageNet-22k). Four feature levels.
_base_ = './vis_gdino_swin_t_model.py'
swin_weights = (
    'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
    'swin_base_patch4_window12_384_22k.pth'
)

model = dict(
    backbone=dict(
        pretrain_img_size=384,
        embed_dims=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=12,
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint=swin_weights),
    ),
    neck=dict(in_channels=[256, 512, 1024]),
)
