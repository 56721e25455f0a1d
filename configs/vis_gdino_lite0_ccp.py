# VIS-GDINO on street photographs with garments (ccp), for two CPU cores: the small model on a
# backbone that knows photographs. docs/study.md says where the data and the weights come from.
_base_ = './vis_gdino_r18_shapes.py'
data_root = 'data/ccp/'
lite0_weights = 'data/backbone/tf_efficientnet_lite0_features.pth'  # trained on ImageNet
max_iters = 330
lr = 8e-4
num_levels = 2  # strides 16 and 32; a third one, 8, doubles the time of a step

model = dict(
    num_feature_levels=num_levels,
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite0',
        out_indices=(4, 5),
        frozen_stages=4,  # up to stride 8
        init_cfg=dict(type='Pretrained', checkpoint=lite0_weights),
    ),
    neck=dict(in_channels=[112, 320], num_outs=num_levels),
    prompt_encoder=dict(num_levels=num_levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels))),
    bbox_head=dict(num_classes=17),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=25)),
)
# the pipelines' `scale=(128, 128)`
_base_.train_pipeline[2].scale = (256, 256)
_base_.test_pipeline[1].scale = (256, 256)
images = dict(img='images/')
train_dataloader = dict(
    dataset=dict(data_root=data_root, data_prefix=images, pipeline=_base_.train_pipeline)
)
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val_base.json',
        data_prefix=images,
        pipeline=_base_.test_pipeline,
    )
)
val_dataloader = test_dataloader
test_evaluator = dict(ann_file=data_root + 'annotations/val_base.json')
val_evaluator = test_evaluator

optim_wrapper = dict(
    optimizer=dict(lr=lr),
    # weights that know photographs take smaller steps
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
