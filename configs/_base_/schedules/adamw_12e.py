# AdamW, 12 epochs, rate x 0.1 after 8 and 11.
max_epochs = 12

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',  # parameters of equal options together
    optimizer=dict(type='AdamW', lr=4e-4, weight_decay=1e-4, fused=True),  # one kernel per group
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            'absolute_pos_embed': dict(decay_mult=0.0),
            'backbone': dict(lr_mult=0.1),
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# the images that lr is meant for; `--auto-scale-lr` scales it to the batch in use
auto_scale_lr = dict(base_batch_size=64, enable=False)
