# The recipe of prompt_recipe_shapes.py on photographs of 144 base and 47 novel classes:
# `mim run mmdet_dino_r1 study studies/prompt_recipe_photographs.py --out DIR`. Expects
# data/tinycollage/{images,annotations} and the backbone's weights in data/backbone.
_base_ = '../_base_/studies/prompt_recipe.py'
name = 'prompt-recipe-photographs-1'

common = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.interval': 300,
}
variants = {
    name: dict(config='vis_gdino_lite0_tinycollage.py', **variant)
    for name, variant in _base_.recipe.items()
}
bank = 'default_hooks.prompt_bank.bank'
novel = {
    'test_dataloader.dataset.ann_file': 'annotations/val_novel.json',
    'test_evaluator.ann_file': 'data/tinycollage/annotations/val_novel.json',
    f'{bank}.data_root': 'data/tinycollage/',
    f'{bank}.ann_file': 'annotations/prompts_novel.json',
    f'{bank}.data_prefix': dict(img='images/'),
}
evaluations = {
    f'{split}/g{shots}': {**of_split, f'{bank}.shots': shots}
    for split, of_split in dict(base={}, novel=novel).items()
    for shots in (1, 4, 16)
}
