# What makes prompts generalise? A contrast of the batch's prompts with one another, batches of
# shuffled colour channels, and both, in supervised training with Quality Focal Loss on the hard
# shapes set. `mim run mmdet_dino_r1 study studies/prompt_recipe_shapes.py --out DIR`; docs/study.md
# has the protocol and the results.
_base_ = '../_base_/studies/hard_shapes.py'
name = 'prompt-recipe-shapes-1'

# --- how a run is trained -----------------------------------------------------------------
quality = {'model.bbox_head.loss_cls': dict(_delete_=True, type='PromptQualityFocalLoss')}
contrast = {'model.prompt_contrast': dict(type='PromptContrastiveLoss')}
shuffle = {'model.data_preprocessor.batch_augments': [dict(type='BatchChannelShuffle')]}
variants = {
    name: dict(config='vis_gdino_r18_shapes_hard.py', title=title, options={**quality, **options})
    for name, title, options in (
        ('quality', 'supervised, Quality Focal Loss', {}),
        ('contrast', 'with a contrast of prompts', contrast),
        ('shuffle', 'with shuffled channels', shuffle),
        ('recipe', 'with both', {**contrast, **shuffle}),
    )
}
comparisons = [
    dict(
        title='At equal steps',
        baseline='quality',
        variants=['contrast', 'shuffle', 'recipe'],
        seeds=5,
    )
]

# --- how every run is tested: split / prompts ---------------------------------------------
bank = _base_.bank
prompts = dict(
    g1={f'{bank}.shots': 1},
    g4={f'{bank}.shots': 4},
    g16={},
    g16_no_nms={'model.test_cfg.nms': None},
)
evaluations = {
    f'{split}/{name}': {f'{bank}.shots': 16, **of_split, **of_prompts}
    for split, of_split in dict(base={}, novel=_base_.novel).items()
    for name, of_prompts in prompts.items()
}
primary = ['base/g1', 'base/g16', 'novel/g1', 'novel/g16']
diagnostics = ['base/g16', 'novel/g16']
