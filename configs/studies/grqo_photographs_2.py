# Do GRQO's groups help on photographs, on a backbone trained on ImageNet? Supervised training
# against GRQO with the published group, an image's queries, and with those of one object, on base
# and on novel classes: `mim run mmdet_dino_r1 study studies/grqo_photographs_2.py --out DIR`.
# Expects data/<set>/{images,annotations} and the backbone's weights in data/backbone; docs/study.md
# says where they come from.
name = 'grqo-photographs-2'

steps = 330
same_time_steps = round(1.05 * steps)  # supervised, in the time that object groups may take
sft, grqo = 'vis_gdino_lite0_ccp.py', 'dino_r1_lite0_ccp.py'
common = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.interval': 110,
    'train_cfg.max_iters': steps,
    'param_scheduler.1.end': steps,
}
methods = dict(
    sft=('supervised', sft, {}),
    sft_same_time=(
        f'supervised, {same_time_steps} steps',
        sft,
        {'train_cfg.max_iters': same_time_steps, 'param_scheduler.1.end': same_time_steps},
    ),
    sft_gamma=(
        'supervised, focal loss of gamma 1/2',
        sft,
        {'model.bbox_head.loss_cls.gamma': 0.5},
    ),
    grqo=('GRQO as published', grqo, {}),
    objects=(
        'GRQO, groups of one object',
        sft,
        {
            'model.bbox_head.loss_grqo': dict(
                type='GRQOLoss', group='object', reward_weight=0.0, kl_weight=0.0
            )
        },
    ),
)
# base classes of a set, the side of its pictures, exemplars of base classes; seeds
sets = dict(
    tinycollage=(144, 192, 'prompts_base.json', 5),
    ccp=(17, 256, 'train.json', 5),
)

bank = 'default_hooks.prompt_bank.bank'


def of_split(data, split, prompts):
    """The images and exemplars of a test."""
    return {
        'test_dataloader.dataset.ann_file': f'annotations/val_{split}.json',
        'test_evaluator.ann_file': f'data/{data}/annotations/val_{split}.json',
        f'{bank}.data_root': f'data/{data}/',
        f'{bank}.ann_file': f'annotations/{prompts}',
        f'{bank}.data_prefix': dict(img='images/'),
    }


variants = {
    f'{data}_{method}': dict(
        title=f'{data}, {title}',
        config=config,
        options={
            'model.bbox_head.num_classes': num_classes,
            'train_dataloader.dataset.data_root': f'data/{data}/',
            'train_dataloader.dataset.pipeline.2.scale': (side, side),
            'test_dataloader.dataset.data_root': f'data/{data}/',
            'test_dataloader.dataset.pipeline.1.scale': (side, side),
            **of_method,
        },
        splits=dict(
            base=of_split(data, 'base', prompts),
            novel=of_split(data, 'novel', 'prompts_novel.json'),
        ),
    )
    for data, (num_classes, side, prompts, _) in sets.items()
    for method, (title, config, of_method) in methods.items()
}
comparisons = [
    dict(
        title=data,
        baseline=f'{data}_sft',
        variants=[f'{data}_{method}' for method in methods if method != 'sft'],
        seeds=seeds,
    )
    for data, (_, _, _, seeds) in sets.items()
]

prompts = dict(
    g1={f'{bank}.shots': 1},
    g4={f'{bank}.shots': 4},
    g16={f'{bank}.shots': 16},
    g16_no_nms={f'{bank}.shots': 16, 'model.test_cfg.nms': None},
)
evaluations = {
    f'{split}/{shots}': options for split in ('base', 'novel') for shots, options in prompts.items()
}
primary = ['base/g16', 'novel/g16', 'base/g16_no_nms', 'novel/g16_no_nms']
diagnostics = ['base/g16', 'novel/g16']
