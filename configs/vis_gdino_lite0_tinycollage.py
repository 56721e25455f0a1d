# VIS-GDINO on tinycollage (144 base classes of Tiny-ImageNet, nine photographs a canvas), for two
# CPU cores. The backbone has seen the novel classes, too: as labelled images, never as boxes.
_base_ = './vis_gdino_lite0_ccp.py'
data_root = 'data/tinycollage/'
max_iters = 900

model = dict(
    backbone=dict(frozen_stages=6),  # all of it: a step takes two thirds of the time
    bbox_head=dict(num_classes=144),
)
train_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = test_dataloader
test_evaluator = dict(ann_file=data_root + 'annotations/val_base.json')
val_evaluator = test_evaluator

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
