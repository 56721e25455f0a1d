"""What a grid file says, and what is said of a wrong one."""

import re
from pathlib import Path

import pytest

from mmdet_dino_r1.lab.study.grid import (
    Run,
    evaluation_config,
    fingerprint,
    load_grid,
    training_config,
)

BANK = 'default_hooks.prompt_bank.bank'
GRID = dict(
    name='test-1',
    common={'train_cfg.max_iters': 7, 'randomness.seed': 99},
    variants=dict(
        sft=dict(config='vis_gdino_r18_shapes.py', title='supervised'),
        grqo=dict(
            config='dino_r1_r18_shapes.py',
            options={'model.bbox_head.loss_grqo.kl_weight': 0.5, 'param_scheduler.1.end': 7},
        ),
        third=dict(config='vis_gdino_r18_shapes.py'),
    ),
    comparisons=[
        dict(title='1', baseline='sft', variants=['grqo'], seeds=2),
        dict(
            title='2',
            baseline='sft',
            variants=['grqo', 'third'],
            seeds=3,
            axis=dict(label='x', values=dict(sft=0, grqo=1), log=True),
        ),
    ],
    evaluations={'base/g4': {f'{BANK}.shots': 4}, 'base/i': {}},
    primary=['base/g4'],
    diagnostics=['base/i'],
    shapes={'data/tiny': dict(image_size=64, difficulty='hard', checksums=dict(pixels='ab'))},
)


def write(folder, **changes) -> Path:
    """A grid file; a key that is set to None is left out."""
    content = {key: value for key, value in {**GRID, **changes}.items() if value is not None}
    path = folder / 'grid.py'
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in content.items()))
    return path


@pytest.fixture
def grid(tmp_path):
    return load_grid(write(tmp_path))


def test_every_run_once_first_things_first(grid):
    def names(**chosen):
        return [f'{run.variant.name} {run.seed}' for run in grid.runs(**chosen)]

    first = ['sft 0', 'grqo 0', 'sft 1', 'grqo 1']
    assert names() == [*first, 'third 0', 'third 1', 'sft 2', 'grqo 2', 'third 2']
    assert names(seeds=1) == ['sft 0', 'grqo 0', 'third 0']
    assert names(variants=['third', 'grqo'], seeds=2) == ['grqo 0', 'grqo 1', 'third 0', 'third 1']


def test_options_of_a_training(grid, tmp_path):
    cfg = training_config(grid, Run(grid.variants['grqo'], 2), tmp_path)
    assert cfg.train_cfg.max_iters == 7 and cfg.randomness.seed == 2
    assert cfg.model.bbox_head.loss_grqo.kl_weight == 0.5
    assert [scheduler['end'] for scheduler in cfg.param_scheduler] == [50, 7]
    assert cfg.work_dir == f'{tmp_path}/grqo/seed_2'
    assert grid.variants['grqo'].title == 'grqo' and grid.variants['sft'].title == 'supervised'
    assert grid.comparisons[1].axis['label'] == 'x' and grid.comparisons[0].axis is None


def test_exemplars_of_a_test_follow_the_seed(grid, tmp_path):
    cfg = training_config(grid, Run(grid.variants['sft'], 2), tmp_path)
    tested = evaluation_config(cfg, grid, 'base/g4', 2)
    assert (cfg.default_hooks.prompt_bank.bank.shots, tested.work_dir) == (
        16,
        f'{tmp_path}/sft/seed_2/tests/base_g4',
    )
    bank = tested.default_hooks.prompt_bank.bank
    assert (bank.shots, bank.seed) == (4, 2)


def test_fingerprints_tell_settings_apart_and_no_folders(grid, tmp_path):
    def of(variant, seed, out='out'):
        return fingerprint(training_config(grid, Run(grid.variants[variant], seed), Path(out)))

    assert re.fullmatch('[0-9a-f]{16}', of('sft', 0))
    assert of('sft', 0) == of('sft', 0, 'elsewhere') == of('third', 0)
    assert len({of('sft', 0), of('sft', 1), of('grqo', 0)}) == 3
    grid.variants['grqo'].options['model.bbox_head.loss_grqo.kl_weight'] = 0.4
    before = of('grqo', 0)
    grid.variants['grqo'].options['model.bbox_head.loss_grqo.kl_weight'] = 0.5
    assert before != of('grqo', 0)


def comparison(**changes):
    return [{**GRID['comparisons'][1], **changes}]


SFT = GRID['variants']['sft']


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(primary=None), 'is no grid of a study: it does not set primary.'),
        (dict(variants={}), 'is no grid of a study: it does not set variants.'),
        (
            dict(diagnostics=None, diagnostic=1),
            'sets diagnostic and no diagnostics: rename it, to diagnostics',
        ),
        (dict(primary='base/g4'), ": primary is 'base/g4', not a list."),
        (dict(evaluations={'base/g4': 4}), ": evaluations['base/g4'] is 4, not a dict."),
        (dict(variants={'a/b': SFT}), ": variants['a/b']: the name is one of a folder"),
        (
            dict(variants=dict(sft=dict(configs='x.py'))),
            ": variants['sft'] lacks config and has configs; its keys are config, title, options.",
        ),
        (
            dict(variants=dict(sft=dict(SFT, options=[]))),
            ": variants['sft'], options is [], not a dict",
        ),
        (
            dict(comparisons=[dict(title='1', variants=['grqo'], seeds=2, baselin='sft')]),
            ': comparisons[0] lacks baseline and has baselin; its keys are title, baseline, '
            'variants,',
        ),
        (
            dict(comparisons=comparison(variants='grqo')),
            ": comparisons[0], variants is 'grqo', not a list.",
        ),
        (
            dict(comparisons=comparison(seeds=0)),
            ': comparisons[0]: seeds is 0, not a number of at least',
        ),
        (
            dict(comparisons=comparison(axis=dict(label='x', values=dict(other=1)))),
            ': comparisons[0]: axis has values for other, which it does not compare.',
        ),
        (
            dict(comparisons=comparison(axis=dict(label='x', values=dict(grqo=0), log=True))),
            ': comparisons[0]: a logarithmic axis has no place for 0.',
        ),
        (
            dict(comparisons=comparison(variants=['gqro'], axis=None)),
            ': comparisons name the variants gqro, which it does not set. It has: sft, grqo, '
            'third.',
        ),
        (
            dict(comparisons=comparison(variants=['grqo'])),
            ': no comparison names the variants third, so nothing says with how many seeds',
        ),
        (
            dict(diagnostics=['novel/i']),
            ': diagnostics names the evaluations novel/i, which it does not set. It has: base/g4,',
        ),
        (dict(shapes={'d': dict(size=3)}), ": shapes['d'] has size; its keys are checksums,"),
        (dict(shapes={'d': dict(difficulty='x')}), ": shapes['d']: difficulty is 'x', not one of "),
    ],
)
def test_what_is_wrong_is_said(tmp_path, changes, said):
    path = write(tmp_path, **changes)
    with pytest.raises(ValueError, match=f'^{path} ?{re.escape(said)}'):
        load_grid(path)


def test_names_of_version_0_5_are_read_and_told(tmp_path, capsys):
    old = dict(variants='cells', comparisons='questions', diagnostics='dynamics')
    content = {old.get(key, key): value for key, value in GRID.items()}
    content['questions'] = [
        {old.get(key, key): value for key, value in entry.items()} for entry in GRID['comparisons']
    ]
    path = tmp_path / 'old.py'
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in content.items()))
    assert load_grid(path) == load_grid(write(tmp_path))
    told = capsys.readouterr().err
    assert 'rename cells -> variants, questions -> comparisons, dynamics -> diagnostics.' in told


def test_no_such_file_and_no_python(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'near names: .*studies/grqo_shapes\.py'):
        load_grid('studies/grqo_shape.py')
    path = tmp_path / 'grid.py'
    for text, said in (
        ('variants = {', 'SyntaxError'),
        ('variants = sft', "NameError: name 'sft'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf'^{path} cannot be read: {said}.* Mend the file\.'):
            load_grid(path)


def test_options_that_do_not_fit(grid, tmp_path):
    run = Run(grid.variants['grqo'], 0)
    run.variant.options['param_scheduler.5.end'] = 3
    with pytest.raises(ValueError, match='^the variant grqo: its options do not fit .*Index 5'):
        training_config(grid, run, tmp_path)
    cfg = training_config(grid, Run(grid.variants['sft'], 0), tmp_path)
    grid.evaluations['base/i'][f'{BANK}'] = 'bank.safetensors'
    with pytest.raises(ValueError, match='^the evaluation base/i: its options do not fit'):
        evaluation_config(cfg, grid, 'base/i', 0)
