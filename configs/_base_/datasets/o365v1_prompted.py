# Objects365 v1 to train on; validated on COCO val2017 with prompts from train2017, as pre-training
# of Grounding DINO is.
_base_ = './coco_prompted.py'
data_root = 'data/Objects365/Obj365_v1/'

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/objects365_train.json',
        data_prefix=dict(img='train/'),
    )
)
coco_prompts = dict(
    data_root='data/coco/',
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
)
