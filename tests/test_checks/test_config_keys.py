"""Keys that nothing reads are found, with the right ones; shipped and mmdet's configs have none."""

from pathlib import Path

import mmdet
import pytest
from conftest import CONFIGS
from mmengine.config import Config

from mmdet_dino_r1.checks.config_keys import misspelt_keys, report_misspelt

MMDETS = [
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'detr/detr_r50_8xb2-150e_coco.py',
    'dino/dino-5scale_swin-l_8xb2-12e_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50-caffe_fpn_ms-poly-3x_coco.py',
    'mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py',
    'queryinst/queryinst_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'vfnet/vfnet_r101_fpn_2x_coco.py',
]


def found(cfg: dict) -> dict[str, str]:
    return dict(misspelt_keys(Config(cfg)))


def test_shipped_configs_have_none():
    for path in sorted(CONFIGS.glob('*.py')):
        assert misspelt_keys(Config.fromfile(path)) == [], path.name


@pytest.mark.parametrize('name', MMDETS)
def test_mmdets_own_configs_have_none(name):
    folder = Path(mmdet.__file__).parent / '.mim' / 'configs'
    assert misspelt_keys(Config.fromfile(folder / name)) == []


@pytest.mark.parametrize(
    ('place', 'taker', 'meant'),
    [
        ('model.num_querys', 'DINOR1', 'num_queries'),
        ('model.backbone.drop_path_rte', 'FusedSwinTransformer', 'drop_path_rate'),
        ('model.encoder.num_cpp', 'model.encoder', 'num_cp'),
        ('model.test_cfg.max_per_image', 'model.test_cfg', 'max_per_img'),
        ('model.test_cfg.negatives.neares', 'model.test_cfg.negatives', 'nearest'),
        ('model.train_cfg.asigner', 'model.train_cfg', 'assigner'),
        ('model.dn_cfg.group_cfg.num_dn_query', 'model.dn_cfg.group_cfg', 'num_dn_queries'),
        ('model.bbox_head.loss_grqo.kl_weigth', 'GRQOLoss', 'kl_weight'),
        ('train_dataloader.batchsize', 'train_dataloader', 'batch_size'),
        ('train_dataloader.sampler.shufle', 'DefaultSampler', 'shuffle'),
        ('optim_wrapper.clip_grads', 'OptimWrapper', 'clip_grad'),
        ('optim_wrapper.acumulative_counts', 'OptimWrapper', 'accumulative_counts'),
        ('optim_wrapper.optimizer.weight_dcay', 'AdamW', 'weight_decay'),
        ('default_hooks.checkpoint.max_keep_ckpt', 'SafeCheckpointHook', 'max_keep_ckpts'),
        ('default_hooks.reference_model.start_epochs', 'ReferenceModelHook', 'start_epoch'),
        ('default_hooks.prompt_bank.bank.shot', 'default_hooks.prompt_bank.bank', 'shots'),
        (
            'train_dataloader.dataset.filter_cfg.min_sizes',
            'train_dataloader.dataset.filter_cfg',
            'min_size',
        ),
        ('optim_wrapper.paramwise_cfg.custom_key', 'optim_wrapper.paramwise_cfg', 'custom_keys'),
        ('default_hooks.chekpoint', 'default_hooks', 'checkpoint'),
        ('param_scheduler.0.start_facter', 'LinearLR', 'start_factor'),
        ('env_cfg.mp_cfg.mp_start_methd', 'env_cfg.mp_cfg', 'mp_start_method'),
        ('randomness.sed', 'randomness', 'seed'),
        ('optim_wraper', 'the top level', 'optim_wrapper'),
        ('load_form', 'the top level', 'load_from'),
    ],
)
def test_each_place(place, taker, meant):
    cfg = Config.fromfile(CONFIGS / 'dino_r1_swin_t_o365.py')
    cfg.merge_from_dict({'randomness': dict(seed=0), place: dict(interval=1)})
    assert misspelt_keys(cfg) == [(place, f'not a key of {taker}; did you mean {meant}?')]


def test_all_are_said_at_once():
    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py')
    cfg.merge_from_dict({'model.num_querys': 10, 'train_cfg.max_iterations': 5})
    lines = report_misspelt(misspelt_keys(cfg), 'x.py').splitlines()
    assert lines == [
        'nothing was started: x.py, or --cfg-options, sets what nothing reads.',
        '  model.num_querys          not a key of DINOR1; did you mean num_queries?',
        '  train_cfg.max_iterations  not a key of IterBasedTrainLoop; did you mean max_iters?',
    ]


def test_without_a_near_key_all_are_told():
    cfg = dict(randomness=dict(zzz=1))
    assert found(cfg) == {
        'randomness.zzz': 'not a key of randomness; it takes deterministic, diff_rank_seed, seed'
    }


def test_keys_of_mmdet_2_are_named_in_todays_form():
    old = dict(type='CocoDataset', ann_file='a.json', img_prefix='images/', classes=('a',))
    cfg = dict(train_dataloader=dict(samples_per_gpu=2, dataset=old))
    key = 'train_dataloader.dataset'
    assert {place: said.partition('; ')[2] for place, said in found(cfg).items()} == {
        'train_dataloader.samples_per_gpu': 'did you mean batch_size?',
        f'{key}.img_prefix': 'did you mean data_prefix=dict(img=…)?',
        f'{key}.classes': 'did you mean metainfo=dict(classes=…)?',
    }


def test_members_of_a_group_are_checked_with_what_they_share():
    group = dict(
        type='DatasetGroup',
        common=dict(type='CocoDataset', test_mode=True),
        datasets=dict(a=dict(ann_file='a.json', prompts=dict(ann_file='p.json')), b=None),
    )
    cfg = dict(test_dataloader=dict(dataset=group))
    assert found(cfg) == {}
    group['datasets']['a']['ann_fil'] = 'a.json'
    assert found(cfg) == {
        'test_dataloader.dataset.datasets.a.ann_fil': 'not a key of CocoDataset; did you mean '
        'ann_file?'
    }


def test_what_cannot_be_known_is_left_alone():
    unknown = dict(type='NobodysHook', anything=1)
    variables = dict(my_own=1, mode='a', val_dataloader=None, val_dataloader2=dict(x=1))
    assert found(dict(custom_hooks=[unknown], **variables)) == {}
    assert found(dict(custom_hooks=[dict(type='EMAHook', momentum=0.1, priority=49)])) == {}
