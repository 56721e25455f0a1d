# LVIS v1 val, prompts from LVIS v1 train. Both draw on both of COCO's image folders.
_base_ = './test_only.py'
data_root = 'data/coco/'
ann_file = 'annotations/lvis_v1_val.json'

# 1203 classes in chunks of 40, 300 detections from each: how Grounding DINO is tested in mmdet.
# All at once, many times faster: chunk_size=0, max_per_chunk=0; see docs/benchmarks.md.
many_classes = dict(chunk_size=40, max_per_chunk=300, max_per_img=9300)  # model.test_cfg

test_dataloader = dict(
    dataset=dict(
        type='CocoJsonDataset',
        data_root=data_root,
        ann_file=ann_file,
        data_prefix=dict(img=''),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
# Fixed AP, and the standard AP of each image's best 300, from one run
test_evaluator = dict(type='LVISBoxMetric', ann_file=data_root + ann_file)
default_hooks = dict(
    prompt_bank=dict(
        bank=dict(
            data_root=data_root,
            ann_file='annotations/lvis_v1_train.json',
            data_prefix=dict(img=''),
            match='id',  # some lists of LVIS's class names differ from its files by a letter
        )
    )
)
