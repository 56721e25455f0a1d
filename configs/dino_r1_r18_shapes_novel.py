# DINO-R1 on classes of the shapes set that it never trained on, with prompts of their own.
_base_ = './dino_r1_r18_shapes.py'

test_dataloader = dict(dataset=dict(ann_file='annotations/val_novel.json'))
test_evaluator = dict(ann_file=_base_.data_root + 'annotations/val_novel.json')
default_hooks = dict(
    prompt_bank=dict(
        bank=dict(
            data_root=_base_.data_root,
            ann_file='annotations/prompts_novel.json',
            data_prefix=dict(img=''),
        )
    )
)
