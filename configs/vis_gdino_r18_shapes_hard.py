# VIS-GDINO on the hard shapes set, for studies of many short runs (docs/study.md): 96 pixels, half
# the backbone's width, some five minutes on one core.
_base_ = './vis_gdino_r18_shapes.py'
data_root = 'data/shapes_hard/'
max_iters = 400

model = dict(
    backbone=dict(base_channels=32, norm_cfg=dict(num_groups=16)),
    neck=dict(in_channels=[64, 128, 256]),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=25)),
)
# the pipelines' `scale=(128, 128)`: the set is drawn at 96 pixels
_base_.train_pipeline[2].scale = (96, 96)
_base_.test_pipeline[1].scale = (96, 96)
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=_base_.train_pipeline))
test_dataloader = dict(dataset=dict(data_root=data_root, pipeline=_base_.test_pipeline))
val_dataloader = test_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
