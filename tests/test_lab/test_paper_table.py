import pytest

from mmdet_dino_r1.lab.paper_table import BENCHMARKS, MODELS, PAPER, cell_of, paper_number


@pytest.mark.parametrize(
    ('config', 'cell'),
    [
        ('dino_r1_swin_t_zeroshot_coco', ('dino_r1_t', 'coco')),
        ('dino_r1_swin_t_coco', ('dino_r1_t', 'coco_finetuned')),
        ('vis_gdino_swin_b_zeroshot_lvis_minival', ('vis_gdino_b', 'lvis_minival')),
        ('vis_gdino_swin_b_lvis', ('vis_gdino_b', 'lvis')),
        ('dino_r1_swin_l_odinw13', ('dino_r1_l', 'odinw13')),
        ('dino_r1_swin_l_zeroshot_odinw35', ('dino_r1_l', 'odinw35')),
        ('dino_r1_r18_shapes', None),
        ('my_dino_r1_swin_t_coco', None),
        ('dino_r1_swin_t_coco_nms', None),
    ],
)
def test_a_config_names_its_cell(config, cell):
    assert cell_of(config) == cell


def test_numbers_of_the_paper():
    assert PAPER.keys() == MODELS.keys()
    assert paper_number('dino_r1_l', 'coco') == '28.1'
    assert paper_number('dino_r1_t', 'lvis_minival') == '17.4 (14.1/17.9/20.8)'
    assert paper_number('vis_gdino_b', 'odinw13') == '11.2'
    assert paper_number('dino_r1_l', 'odinw35') == '12.6'
    assert paper_number('dino_r1_t', 'coco_finetuned') == '37.2 / 39.6'
    assert paper_number('dino_r1_t', 'lvis') is None
    assert {len(row) for row in PAPER.values()} == {len(BENCHMARKS) - 1}
