# Does GRQO help on photographs, on a backbone trained on ImageNet, and does Quality Focal Loss?
# Base and novel classes of ccp: `mim run mmdet_dino_r1 study studies/grqo_photographs_2.py --out
# DIR`. Expects data/ccp/{images,annotations} and the backbone's weights in data/backbone;
# docs/study.md says where they come from.
name = 'grqo-photographs-2'

steps = 330
same_time_steps = round(1.05 * steps)  # supervised; a step of GRQO takes longer
sft, grqo = 'vis_gdino_lite0_ccp.py', 'dino_r1_lite0_ccp.py'
common = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.interval': 110,
}
loss_cls = 'model.bbox_head.loss_cls'
variants = {
    'ccp_sft_same_time': dict(
        title=f'supervised, {same_time_steps} steps',
        config=sft,
        options={'train_cfg.max_iters': same_time_steps, 'param_scheduler.1.end': same_time_steps},
    ),
    'ccp_sft_gamma': dict(
        title='supervised, focal loss of gamma 1/2', config=sft, options={f'{loss_cls}.gamma': 0.5}
    ),
    'ccp_quality': dict(
        title='supervised, Quality Focal Loss',
        config=sft,
        options={loss_cls: dict(_delete_=True, type='PromptQualityFocalLoss')},
    ),
    'ccp_grqo': dict(title='GRQO as published', config=grqo),
}
comparisons = [
    dict(
        title='On base and on novel classes',
        baseline='ccp_sft_same_time',
        variants=['ccp_sft_gamma', 'ccp_quality', 'ccp_grqo'],
        seeds=5,
    )
]

bank = 'default_hooks.prompt_bank.bank'
novel = {
    'test_dataloader.dataset.ann_file': 'annotations/val_novel.json',
    'test_evaluator.ann_file': 'data/ccp/annotations/val_novel.json',
    f'{bank}.data_root': 'data/ccp/',
    f'{bank}.ann_file': 'annotations/prompts_novel.json',
    f'{bank}.data_prefix': dict(img='images/'),
}
prompts = dict(
    g1={f'{bank}.shots': 1},
    g4={f'{bank}.shots': 4},
    g16={f'{bank}.shots': 16},
    g16_no_nms={f'{bank}.shots': 16, 'model.test_cfg.nms': None},
)
evaluations = {
    f'{split}/{shots}': {**of_split, **of_prompts}
    for split, of_split in dict(base={}, novel=novel).items()
    for shots, of_prompts in prompts.items()
}
primary = ['base/g16', 'novel/g16', 'base/g16_no_nms', 'novel/g16_no_nms']
diagnostics = ['base/g16', 'novel/g16']
