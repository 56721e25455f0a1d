# VIS-GDINO made small for two CPU cores: ResNet-18, three levels, 2 + 2 layers, 50 queries.
_base_ = './vis_gdino_swin_t_model.py'
num_levels = 3

model = dict(
    num_queries=50,
    num_feature_levels=num_levels,
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        # trained from scratch; see ReferenceModel on why not BatchNorm
        norm_cfg=dict(type='GN', num_groups=32, requires_grad=True),
        norm_eval=False,
        style='pytorch',
    ),
    neck=dict(in_channels=[128, 256, 512], num_outs=num_levels),
    prompt_encoder=dict(num_levels=num_levels),
    encoder=dict(
        num_layers=2,
        num_cp=0,
        layer_cfg=dict(
            self_attn_cfg=dict(num_levels=num_levels),
            ffn_cfg=dict(feedforward_channels=512),
        ),
        text_layer_cfg=dict(ffn_cfg=dict(feedforward_channels=512)),
        fusion_layer_cfg=dict(embed_dim=256, init_values=0.1),
    ),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            cross_attn_cfg=dict(num_levels=num_levels),
            ffn_cfg=dict(feedforward_channels=512),
        ),
    ),
    bbox_head=dict(
        num_classes=30,
        # boxes are learned in a few hundred steps here, telling classes apart is what takes long
        loss_cls=dict(loss_weight=3.0),
    ),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=50)),
    # A few hundred steps do not teach the decoder to leave an object to a single query, which is
    # what makes DETRs do without suppression; a model trained at length needs none.
    test_cfg=dict(max_per_img=100, nms=dict(type='nms', iou_threshold=0.7)),
)
