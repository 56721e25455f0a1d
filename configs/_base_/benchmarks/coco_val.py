# COCO val2017, prompts from train2017.
_base_ = './test_only.py'
data_root = 'data/coco/'
ann_file = 'annotations/instances_val2017.json'

test_dataloader = dict(
    dataset=dict(
        type='CocoJsonDataset',
        data_root=data_root,
        ann_file=ann_file,
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
test_evaluator = dict(type='CocoJsonMetric', ann_file=data_root + ann_file, metric='bbox')
default_hooks = dict(
    prompt_bank=dict(
        bank=dict(
            data_root=data_root,
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
        )
    )
)
