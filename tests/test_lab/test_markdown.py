from mmdet_dino_r1.lab.markdown import markdown_table


def test_a_table():
    assert markdown_table(['a', 'b'], [['1', '2']]) == '| a | b |\n| --- | --- |\n| 1 | 2 |'


def test_a_text_cannot_break_a_table():
    assert markdown_table(['a'], [['x | y']]) == '| a |\n| --- |\n| x \\| y |'
