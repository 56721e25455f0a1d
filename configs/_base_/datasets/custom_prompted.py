# Your own data in COCO format; class names are read from the annotation files.
_base_ = './coco_prompted.py'
data_root = 'data/custom/'

train_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='train.json', data_prefix=dict(img='train/'))
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='val.json', data_prefix=dict(img='val/'))
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'val.json')
test_evaluator = val_evaluator
