# Does GRQO help when its group is the queries that compete for one object, and which of its parts
# do? Supervised training against it on the hard shapes set, at equal steps and at equal time, with
# suppression and without. `mim run mmdet_dino_r1 study studies/object_groups.py --out DIR`;
# docs/study.md has the protocol and the results.
_base_ = '../_base_/studies/hard_shapes.py'
name = 'grqo-objects-1'

same_time_steps = 420  # 1.05 x 400: more than the step of object groups costs; see docs/study.md

# --- how a run is trained -----------------------------------------------------------------
supervised = {
    'sft': ('supervised (VIS-GDINO)', {}),
    'sft_same_time': (
        f'supervised, {same_time_steps} steps',
        {'train_cfg.max_iters': same_time_steps, 'param_scheduler.1.end': same_time_steps},
    ),
    'sft_gamma_0.5': (
        'supervised, focal loss of gamma 1/2',
        {'model.bbox_head.loss_cls.gamma': 0.5},
    ),
}
# k: queries of an object in the layers but the last, in the last, in the selection
of_objects = {
    'objects': ('object groups: k = 3, 1, 3; gamma 1/2', {}),
    'k_111': ('k = 1, 1, 1: the quality target alone', dict(queries=(1, 1, 1))),
    'k_113': ('k = 1, 1, 3', dict(queries=(1, 1, 3))),
    'k_311': ('k = 3, 1, 1', dict(queries=(3, 1, 1))),
    'k_212': ('k = 2, 1, 2', dict(queries=(2, 1, 2))),
    'k_616': ('k = 6, 1, 6', dict(queries=(6, 1, 6))),
    'k_333': ('k = 3, 3, 3', dict(queries=(3, 3, 3))),
    'gamma_0': ('gamma 0', dict(gamma=0.0)),
    'gamma_1': ('gamma 1', dict(gamma=1.0)),
    'gamma_2': ('gamma 2', dict(gamma=2.0)),
    'temperature_0.5': ('temperature 1/2', dict(temperature=0.5)),
    'temperature_3': ('temperature 3', dict(temperature=3.0)),
    'hard_target': ('target 1 for the best, no quality', dict(powers=(0.0, 0.0))),
    'iou_target': ('quality = IoU', dict(powers=(0.0, 1.0))),
}
terms = {
    'with_kl': ('object groups and the KL term, weight 0.04', dict(kl_weight=0.04)),
    'with_reward': ('object groups and the reward term, weight 0.01', dict(reward_weight=0.01)),
}
groups = dict(type='GRQOLoss', group='object', reward_weight=0.0, kl_weight=0.0)
hook = {'default_hooks.reference_model': dict(type='ReferenceModelHook')}
options = {name: (title, of_run) for name, (title, of_run) in supervised.items()}
options.update(
    {
        name: (title, {'model.bbox_head.loss_grqo': dict(groups, objects=settings)})
        for name, (title, settings) in of_objects.items()
    }
)
options.update(
    {
        name: (title, {'model.bbox_head.loss_grqo': dict(groups, **settings), **hook})
        for name, (title, settings) in terms.items()
    }
)
variants = {
    name: dict(config='vis_gdino_r18_shapes_hard.py', title=title, options=of_run)
    for name, (title, of_run) in options.items()
}

# --- what is compared ---------------------------------------------------------------------
comparisons = [
    dict(
        title='1. Object groups against supervised training of equal steps',
        baseline='sft',
        variants=['objects', 'sft_same_time', 'sft_gamma_0.5'],
        seeds=5,
    ),
    dict(
        title='2. Object groups against supervised training of equal time',
        baseline='sft_same_time',
        variants=['objects'],
        seeds=5,
    ),
    dict(
        title='3. How many queries an object has',
        baseline='objects',
        variants=[name for name in of_objects if name.startswith('k_')],
        seeds=5,
    ),
    dict(
        title='4. What the groups are taught',
        baseline='objects',
        variants=[name for name in of_objects if not name.startswith(('k_', 'objects'))],
        seeds=5,
    ),
    dict(
        title='5. The published terms beside them', baseline='objects', variants=[*terms], seeds=5
    ),
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
