# VIS-GDINO on the shapes set, two CPU cores: the supervised twin of dino_r1_r18_shapes.
_base_ = [
    './_base_/plugin_runtime.py',
    './_base_/models/vis_gdino_r18_small_model.py',
    './_base_/datasets/shapes.py',
    './_base_/schedules/adamw_12e.py',
]
max_iters = 500
lr = 8e-4

randomness = dict(seed=0)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, eta_min_ratio=0.02),
]
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1),
)
log_processor = dict(window_size=20, by_epoch=False)
auto_scale_lr = dict(base_batch_size=8)
