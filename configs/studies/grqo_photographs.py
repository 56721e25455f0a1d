# Does GRQO help on small sets of real photographs? From scratch, and from weights that were trained
# supervised on the hard shapes set: `mim run mmdet_dino_r1 study studies/grqo_photographs.py
# --out DIR`, after the study grqo_shapes.py in work_dirs/study. Three public sets in COCO format,
# as data/<set>/{images,annotations}; docs/study.md says where they come from.
name = 'grqo-photographs-1'

steps = 200
warm_start = 'work_dirs/study/sft/seed_0/weights.pth'
test_files = dict(bccd='test.json', cards='val.json', raccoon='val.json')
scale = (128, 128)

common = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.interval': 100,
    'train_cfg.max_iters': steps,
    'param_scheduler.1.end': steps,
    'train_dataloader.dataset.ann_file': 'annotations/train.json',
    'train_dataloader.dataset.data_prefix': dict(img='images/'),
    'train_dataloader.dataset.pipeline.2.scale': scale,
    'test_dataloader.dataset.data_prefix': dict(img='images/'),
    'test_dataloader.dataset.pipeline.1.scale': scale,
}
methods = dict(
    sft=('supervised', 'vis_gdino_r18_shapes_hard.py', {}),
    grqo=('GRQO as published', 'dino_r1_r18_shapes_hard.py', {}),
)
starts = dict(
    scratch=('from scratch', {}),
    # weights that know boxes already take smaller steps
    shapes=('from shapes', {'load_from': warm_start, 'optim_wrapper.optimizer.lr': 4e-4}),
)

variants = {
    f'{data}_{start}_{method}': dict(
        title=f'{data}, {started}, {title}',
        config=config,
        options={
            'train_dataloader.dataset.data_root': f'data/{data}/',
            'test_dataloader.dataset.data_root': f'data/{data}/',
            'test_dataloader.dataset.ann_file': f'annotations/{test_file}',
            'test_evaluator.ann_file': f'data/{data}/annotations/{test_file}',
            **of_start,
            **of_method,
        },
    )
    for data, test_file in test_files.items()
    for start, (started, of_start) in starts.items()
    for method, (title, config, of_method) in methods.items()
}
comparisons = [
    dict(
        title=f'{data}, {started}',
        baseline=f'{data}_{start}_sft',
        variants=[f'{data}_{start}_{method}' for method in methods if method != 'sft'],
        seeds=3,
    )
    for data in test_files
    for start, (started, _) in starts.items()
]

bank = 'default_hooks.prompt_bank.bank'
evaluations = {
    'test/g16': {f'{bank}.shots': 16},
    'test/g16_no_nms': {f'{bank}.shots': 16, 'model.test_cfg.nms': None},
    'test/i': {'default_hooks.prompt_bank.protocol': 'visual_i'},
}
primary = ['test/g16', 'test/i']
diagnostics = ['test/g16']
