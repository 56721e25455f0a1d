# What makes prompts generalise? A contrast of prompts, in the batch and with a memory of classes,
# on the hard shapes set. `mim run mmdet_dino_r1 study studies/prompt_recipe_shapes.py --out DIR`;
# docs/prompt_recipe.md has the protocol and the results.
_base_ = ['../_base_/studies/hard_shapes.py', '../_base_/studies/prompt_recipe.py']
name = 'prompt-recipe-shapes-1'

variants = {
    name: dict(config='vis_gdino_r18_shapes_hard.py', **variant)
    for name, variant in _base_.recipe.items()
}
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
