# What every config of this package runs with.
custom_imports = dict(imports=['mmdet_dino_r1'], allow_failed_imports=False)
default_scope = 'mmdet'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # a full disk or a killed process leaves the checkpoint before, whole
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    strict_load=dict(type='StrictLoadHook'),  # refuses to resume or test another model's
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # a resumed run goes on as if it had not been stopped
    resume=dict(type='ResumeHook'),
    # <work dir>/<time>/first_batch.jpg: are the boxes where they should be?
    first_batch=dict(type='FirstBatchHook'),
    # mim test --show-dir DIR; pictures of one name in several folders are all kept
    visualization=dict(type='GroupVisualizationHook'),
    # visual prompts for validation and test: per class the mean of 16 boxes of the training set
    prompt_bank=dict(type='PromptBankHook', bank=dict(shots=16, seed=0)),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
# device_ids=None: the device that the model is on, be it a CPU; mmengine would name a CUDA device
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='LegibleVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
