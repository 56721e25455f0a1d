# Does late prompting help? Prompts that image features and decoder see (fused) or do not (late),
# read from the neck or the encoder's memory, box by box or jointly those of a class on an image.
# `mim run mmdet_dino_r1 study studies/late_prompting.py --out DIR`; docs/study.md has the protocol.
_base_ = '../_base_/studies/hard_shapes.py'
name = 'late-prompting-1'

# --- how a run is trained -----------------------------------------------------------------
late = {'model.fusion': False}
memory = {**late, 'model.prompts_from': 'memory'}
joint = {'model.prompt_encoder.type': 'JointPromptEncoder'}
joint_1 = {**joint, 'model.prompt_encoder.num_layers': 1}
joint_3 = {**joint, 'model.prompt_encoder.num_layers': 3}
variants = {
    name: dict(config='vis_gdino_r18_shapes_hard.py', title=title, options=options)
    for name, title, options in (
        ('fused', 'fused, neck, box by box (published)', {}),
        ('fused_joint_3', 'fused, neck, jointly in 3 layers', joint_3),
        ('late_neck', 'late, neck, box by box', late),
        ('late_memory', 'late, memory, box by box', memory),
        ('late_memory_joint_1', 'late, memory, jointly in 1 layer', {**memory, **joint_1}),
        ('late_memory_joint_3', 'late, memory, jointly in 3 layers', {**memory, **joint_3}),
    )
}
comparisons = [
    dict(
        title='Late prompting against fused prompts',
        baseline='fused',
        variants=[name for name in variants if name != 'fused'],
        seeds=5,
    )
]

# --- how every run is tested: split / prompts ---------------------------------------------
bank = _base_.bank
# all classes, 5 or 1 of them at a time. Every (query, class) pair is kept: with fewer, duplicates
# would be suppressed before the best are taken where all go in at once, and after that in chunks
chunk, every_pair = 'model.test_cfg.chunk_size', {'model.test_cfg.max_per_img': 1500}
prompts = dict(
    g16={},
    all=every_pair,
    by_5={**every_pair, chunk: 5},
    by_1={**every_pair, chunk: 1},
    i={'default_hooks.prompt_bank.protocol': 'visual_i'},
)
evaluations = {
    f'{split}/{name}': {f'{bank}.shots': 16, **of_split, **of_prompts}
    for split, of_split in dict(base={}, novel=_base_.novel).items()
    for name, of_prompts in prompts.items()
}
primary = ['base/g16', 'novel/g16']
diagnostics = ['base/g16', 'novel/g16']
