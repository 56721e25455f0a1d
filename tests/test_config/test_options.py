"""What --cfg-options sets is read, or it is refused with the key that is."""

from pathlib import Path

import mmdet
import pytest
from conftest import CONFIGS
from mmengine.config import Config

from mmdet_dino_r1.apis import DINOR1Inferencer
from mmdet_dino_r1.config.loading import load_config
from mmdet_dino_r1.config.options import WrongOption, refuse_unread
from mmdet_dino_r1.tools import check_data, detect

SHAPES = CONFIGS / 'dino_r1_r18_shapes.py'
DATA = [f'{split}_dataloader.dataset' for split in ('train', 'val', 'test')]


def instead(cfg: Config, option: str) -> str:
    """What to set instead of an option."""
    with pytest.raises(WrongOption) as error:
        refuse_unread(cfg, [option])
    first, line = str(error.value).splitlines()
    assert first == '--cfg-options has no effect:' and line.startswith(f'  {option} is ')
    return line.rpartition('set ')[2]


@pytest.mark.parametrize(
    ('option', 'places'),
    [
        ('max_iters', 'train_cfg.max_iters'),
        ('lr', 'optim_wrapper.optimizer.lr'),
        ('data_root', ', '.join(f'{part}.data_root' for part in DATA)),
        ('train_pipeline.2.scale', 'train_dataloader.dataset.pipeline.2.scale'),
        ('start_epoch', 'default_hooks.reference_model.start_epoch'),
        ('grqo.kl_weight', 'model.bbox_head.loss_grqo.kl_weight'),
    ],
)
def test_a_variable_is_refused_with_its_places(option, places):
    assert instead(Config.fromfile(SHAPES), option) == places


@pytest.mark.parametrize(
    ('option', 'key'),
    [
        ('optimizer.lr', 'optim_wrapper.optimizer.lr'),
        ('data.samples_per_gpu', 'train_dataloader.batch_size'),
        ('data.train.ann_file', 'train_dataloader.dataset.ann_file'),
        ('runner.max_iters', 'train_cfg.max_iters'),
        ('seed', 'randomness.seed'),
        ('resume_from', 'load_from, with resume=True (--resume FILE)'),
        ('opencv_num_threads', 'env_cfg.mp_cfg.opencv_num_threads'),
        ('load_form', 'load_from'),
        ('mine', 'it in the file as well'),
    ],
)
def test_a_key_of_mmdet_2_or_of_nobody_is_refused_with_the_right_one(option, key):
    assert instead(Config.fromfile(SHAPES), option) == key


def test_all_are_said_at_once():
    with pytest.raises(WrongOption) as error:
        refuse_unread(Config.fromfile(SHAPES), ['lr', 'model.num_queries', 'seed'])
    assert str(error.value).splitlines()[1:] == [
        '  lr is a variable, which was put into its places as the file was read; set '
        'optim_wrapper.optimizer.lr',
        '  seed is read by nothing; set randomness.seed',
    ]


def test_what_is_read_or_may_be_read_is_left_alone(tmp_path):
    """A variable that no file puts anywhere may be read by the user's own code."""
    path = tmp_path / 'mine.py'
    path.write_text(
        f'_base_ = {str(SHAPES)!r}\ninterval = 7\nmine = dict(a=1)\n'
        'my_train_dataloader = dict(batch_size=3)\n'
    )
    options = {
        'interval': 8,
        'mine.a': 2,
        'my_train_dataloader.batch_size': 4,
        'load_from': 'x.pth',
        'tta_model.type': 'DetTTAModel',
        'model.test_cfg.chunk_size': 5,
        'check_data': False,
    }
    cfg = load_config(path, options)
    assert (cfg.interval, cfg.mine.a, cfg.model.test_cfg.chunk_size) == (8, 2, 5)


def test_a_dumped_config_has_its_variables_still(tmp_path):
    Config.fromfile(SHAPES).dump(tmp_path / 'dumped.py')
    cfg = Config.fromfile(tmp_path / 'dumped.py')
    assert instead(cfg, 'lr') == 'optim_wrapper.optimizer.lr'
    assert instead(cfg, 'start_epoch') == 'default_hooks.reference_model.start_epoch'


def test_a_variable_that_went_into_a_sum_has_no_place():
    folder = Path(mmdet.__file__).parent / '.mim' / 'configs'
    cfg = Config.fromfile(folder / 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    assert instead(cfg, 'stage2_num_epochs') == 'it in the file'
    assert instead(cfg, 'max_epochs') == 'train_cfg.max_epochs'


def test_tools_and_python_say_it_alike(capsys):
    said = '  lr is a variable, which was put into its places as the file was read; set '
    said += 'optim_wrapper.optimizer.lr\n'
    more = 'no.pth --bank no.safetensors --input no.jpg --out no'.split()
    for tool, words in ((check_data, []), (detect, more)):
        assert tool.main([str(SHAPES), *words, '--cfg-options', 'lr=1e-5']) == 2
        assert capsys.readouterr().err.endswith(said)
    with pytest.raises(ValueError, match='lr is a variable'):
        DINOR1Inferencer(str(SHAPES), 'no.pth', cfg_options=dict(lr=1e-5))


@pytest.mark.parametrize(
    ('option', 'reason'),
    [
        ('param_scheduler.9.end', 'Index 9 exceeds'),
        ('model.num_queries.x', 'num_queries is a dict'),
        ('model.img_scales.0', 'no list model.img_scales'),
    ],
)
def test_what_cannot_be_merged_is_named(option, reason):
    with pytest.raises(WrongOption, match=f'^--cfg-options {option}: .*{reason}'):
        load_config(SHAPES, {option: 3})
