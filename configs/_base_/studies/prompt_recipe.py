# What the studies of a contrast of prompts compare, in supervised training with Quality Focal Loss.
quality = {'model.bbox_head.loss_cls': dict(_delete_=True, type='PromptQualityFocalLoss')}
contrast = 'model.prompt_contrast'
recipe = dict(
    quality=dict(title='supervised, Quality Focal Loss', options=quality),
    batch=dict(
        title='with a contrast of the batch',
        options={**quality, contrast: dict(type='PromptContrastiveLoss', memory_rate=0)},
    ),
    memory=dict(
        title='with a contrast of the batch and a memory of classes',
        options={**quality, contrast: dict(type='PromptContrastiveLoss')},
    ),
)
comparisons = [
    dict(title='At equal steps', baseline='quality', variants=['batch', 'memory'], seeds=5)
]
primary = ['base/g1', 'base/g16', 'novel/g1', 'novel/g16']
diagnostics = ['base/g16', 'novel/g16']
