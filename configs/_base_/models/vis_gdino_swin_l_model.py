# VIS-GDINO, Swin-L (384, ImageNet-22k). Five feature levels, stride 4 among them.
_base_ = './vis_gdino_swin_t_model.py'
swin_weights = (
    'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
    'swin_large_patch4_window12_384_22k.pth'
)
num_levels = 5

model = dict(
    num_feature_levels=num_levels,
    backbone=dict(
        pretrain_img_size=384,
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        drop_path_rate=0.2,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(checkpoint=swin_weights),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536], num_outs=num_levels),
    prompt_encoder=dict(num_levels=num_levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels))),
)
