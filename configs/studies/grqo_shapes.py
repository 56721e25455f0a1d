# Does GRQO help? Supervised training against GRQO on the hard shapes set, at equal steps and at
# equal time; which of its settings matter.
# `mim run mmdet_dino_r1 study studies/grqo_shapes.py --out DIR`; docs/study.md has the protocol and
# the results. The keys are explained in mmdet_dino_r1/lab/study/grid.py. A change of what is
# trained, drawn or tested is a new name.
_base_ = '../_base_/studies/hard_shapes.py'
name = 'grqo-shapes-1'

steps = 400
same_time_steps = 475  # supervised steps that take as long as `steps` of GRQO; see docs/study.md
sft, grqo = 'vis_gdino_r18_shapes_hard.py', 'dino_r1_r18_shapes_hard.py'

# --- how a run is trained -----------------------------------------------------------------
loss = 'model.bbox_head.loss_grqo'
hook = 'default_hooks.reference_model'
weight, kl, mute = f'{loss}.reward_weight', f'{loss}.kl_weight', f'{loss}.mute_share'
# the share of GRQO in the gradient, measured on every hundredth step
grqo_common = {'custom_hooks': [dict(type='GradientShareHook', interval=100)]}
policy = {f'{loss}.advantage': 'policy'}
draw = 'model.prompt_sampler'
sampler = {f'{draw}.type': 'InBatchPromptSampler'}
supervised = {
    'sft': ('supervised (VIS-GDINO)', {}),
    'sft_same_time': (
        f'supervised, {same_time_steps} steps',
        {'train_cfg.max_iters': same_time_steps, 'param_scheduler.1.end': same_time_steps},
    ),
    'sft_mean4': (
        'supervised, mean of up to 4 exemplars',
        {**sampler, f'{draw}.exemplars_per_class': 4},
    ),
    'sft_other': (
        "supervised, other images' exemplars",
        {**sampler, f'{draw}.prefer_other_image': True},
    ),
    'sft_mean4_other': (
        'supervised, both',
        {**sampler, f'{draw}.exemplars_per_class': 4, f'{draw}.prefer_other_image': True},
    ),
}
with_grqo = {
    'grqo': ('GRQO as published', {}),
    'reward_0.1': ('reward weight 0.1', {weight: 0.1}),
    'reward_1': ('reward weight 1', {weight: 1.0}),
    'reward_10': ('reward weight 10', {weight: 10.0}),
    'reward_100': ('reward weight 100', {weight: 100.0}),
    'reward_10_mute_0': ('reward weight 10, none muted', {weight: 10.0, mute: 0.0}),
    'reward_10_mute_half': ('reward weight 10, half muted', {weight: 10.0, mute: 0.5}),
    'policy_1': ('policy, weight 1, a third muted', {weight: 1.0, **policy}),
    'policy_1_mute_0': ('policy, weight 1, none muted', {weight: 1.0, mute: 0.0, **policy}),
    'policy_1_mute_half': ('policy, weight 1, half muted', {weight: 1.0, mute: 0.5, **policy}),
    'reward_10_late': (
        f'reward weight 10 after {steps // 2} supervised steps',
        {weight: 10.0, f'{hook}.start_iter': steps // 2},
    ),
    'no_kl': ('GRQO without KL', {kl: 0.0}),
    'kl_0.4': ('KL weight 0.4', {kl: 0.4}),
    'kl_4': ('KL weight 4', {kl: 4.0}),
    'kl_40': ('KL weight 40', {kl: 40.0}),
    'kl_4_every_100': (
        'KL weight 4, reference every 100 steps',
        {kl: 4.0, f'{hook}.by_epoch': False, f'{hook}.interval': 100},
    ),
    'kl_4_never': (
        'KL weight 4, reference never refreshed',
        {kl: 4.0, f'{hook}.by_epoch': False, f'{hook}.interval': 10**9},
    ),
    'kl_4_own_draw': (
        'KL weight 4, the reference draws its own exemplars',
        {kl: 4.0, f'{loss}.shared_exemplars': False},
    ),
}
variants = {
    name: dict(config=sft, title=title, options=options)
    for name, (title, options) in supervised.items()
}
variants.update(
    {
        name: dict(config=grqo, title=title, options={**grqo_common, **options})
        for name, (title, options) in with_grqo.items()
    }
)

# --- what is compared ---------------------------------------------------------------------
reward_weights = dict(grqo=0.01, **{f'reward_{n:g}': n for n in (0.1, 1, 10, 100)})
kl_weights = dict(grqo=0.04, **{f'kl_{n:g}': n for n in (0.4, 4, 40)})
comparisons = [
    dict(
        title='1. GRQO with the published settings against supervised training',
        baseline='sft',
        variants=['grqo', 'sft_same_time'],
        seeds=5,
    ),
    dict(
        title='2. The reward weight',
        baseline='sft',
        variants=list(reward_weights),
        seeds=3,
        axis=dict(label='reward weight', values=reward_weights, log=True),
    ),
    dict(
        title='3. Reward or policy, and how many queries are muted',
        baseline='sft',
        variants=[
            'reward_10',
            'reward_10_mute_0',
            'reward_10_mute_half',
            'policy_1',
            'policy_1_mute_0',
            'policy_1_mute_half',
        ],
        seeds=3,
    ),
    dict(
        title='4. Exemplars in training',
        baseline='sft',
        variants=['sft_mean4', 'sft_other', 'sft_mean4_other'],
        seeds=3,
    ),
    dict(
        title='5. The KL weight',
        baseline='no_kl',
        variants=list(kl_weights),
        seeds=3,
        axis=dict(label='KL weight', values=kl_weights, log=True),
    ),
    dict(
        title='6. The reference model',
        baseline='kl_4',
        variants=['kl_4_every_100', 'kl_4_never', 'kl_4_own_draw'],
        seeds=3,
    ),
    dict(
        title='7. Supervised first, then GRQO',
        baseline='sft',
        variants=['reward_10', 'reward_10_late'],
        seeds=3,
    ),
]

# --- how every run is tested: split / prompts ---------------------------------------------
bank = _base_.bank
prompts = dict(
    g1={f'{bank}.shots': 1},
    g4={f'{bank}.shots': 4},
    g16={f'{bank}.shots': 16},
    # as the paper tests: nothing suppresses duplicates
    g16_no_nms={f'{bank}.shots': 16, 'model.test_cfg.nms': None},
    i={'default_hooks.prompt_bank.protocol': 'visual_i'},
)
evaluations = {
    f'{split}/{name}': {**of_split, **of_prompts}
    for split, of_split in dict(base={}, novel=_base_.novel).items()
    for name, of_prompts in prompts.items()
}
primary = ['base/g16', 'novel/g16']
diagnostics = ['base/g16', 'novel/g16']
