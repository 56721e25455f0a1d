# Does Quality Focal Loss help, whose target is the IoU of a query's box instead of 1, and how much
# of that is the lower power of its weight? Supervised training on the hard shapes set, with
# suppression and without. `mim run mmdet_dino_r1 study studies/quality_target.py --out DIR`;
# docs/study.md has the protocol and the results.
_base_ = '../_base_/studies/hard_shapes.py'
name = 'quality-target-1'

# --- how a run is trained -----------------------------------------------------------------
longer = 420  # 1.05 x 400
loss_cls = 'model.bbox_head.loss_cls'
quality = dict(_delete_=True, type='PromptQualityFocalLoss')
variants = {
    name: dict(config='vis_gdino_r18_shapes_hard.py', title=title, options=options)
    for name, title, options in (
        ('sft', 'supervised (VIS-GDINO)', {}),
        (
            'sft_same_time',
            f'supervised, {longer} steps',
            {'train_cfg.max_iters': longer, 'param_scheduler.1.end': longer},
        ),
        ('sft_gamma_0.5', 'supervised, focal loss of gamma 1/2', {f'{loss_cls}.gamma': 0.5}),
        ('quality', 'supervised, Quality Focal Loss', {loss_cls: quality}),
    )
}
comparisons = [
    dict(
        title='At equal steps',
        baseline='sft',
        variants=['sft_same_time', 'sft_gamma_0.5', 'quality'],
        seeds=5,
    ),
    dict(title='At 1.05 times the steps', baseline='sft_same_time', variants=['quality'], seeds=9),
    dict(title='At equal gamma', baseline='sft_gamma_0.5', variants=['quality'], seeds=5),
]

# --- how every run is tested: split / prompts ---------------------------------------------
bank = _base_.bank
prompts = dict(
    g16={f'{bank}.shots': 16},
    g16_no_nms={f'{bank}.shots': 16, 'model.test_cfg.nms': None},
)
evaluations = {
    f'{split}/{name}': {**of_split, **of_prompts}
    for split, of_split in dict(base={}, novel=_base_.novel).items()
    for name, of_prompts in prompts.items()
}
primary = list(evaluations)
