# What studies on the hard shapes set share: the set, no validation while training, and the options
# of a test on novel classes.
shapes = {
    'data/shapes_hard': dict(
        difficulty='hard',
        image_size=96,
        val_images=100,
        val_novel_images=100,
        checksums=dict(annotations='674145587fd4d386', pixels='892373761b6c98c9'),
    )
}
common = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.interval': 100,
}
bank = 'default_hooks.prompt_bank.bank'
novel = {
    'test_dataloader.dataset.ann_file': 'annotations/val_novel.json',
    'test_evaluator.ann_file': 'data/shapes_hard/annotations/val_novel.json',
    f'{bank}.data_root': 'data/shapes_hard/',
    f'{bank}.ann_file': 'annotations/prompts_novel.json',
    f'{bank}.data_prefix': dict(img=''),
}
