# LVIS-minival: the part of LVIS v1 val that lies in COCO val2017 (MDETR's choice).
_base_ = './lvis_val.py'
ann_file = 'annotations/lvis_v1_minival_inserted_image_name.json'

test_dataloader = dict(dataset=dict(ann_file=ann_file))
test_evaluator = dict(ann_file=_base_.data_root + ann_file)
