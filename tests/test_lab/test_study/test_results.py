import json
import re

import pytest

from mmdet_dino_r1.lab.study.results import read_result, read_results

RESULT = dict(
    variant='sft',
    seed=0,
    title='VIS-GDINO',
    steps=300,
    train_seconds=251.2,
    seconds_per_step=0.83,
    fingerprint='ab12',
    versions=dict(torch='2.6.0'),
    device='CPU',
    data={'data/hard': dict(annotations='aa', pixels='bb')},
    training={},
    metrics={'base/g16': dict(AP=0.4, AP50=0.6)},
)


def write(root, variant, seed, changes=None, diagnostics=None):
    folder = root / variant / f'seed_{seed}'
    folder.mkdir(parents=True)
    path = folder / 'result.json'
    path.write_text(json.dumps(RESULT | dict(variant=variant, seed=seed) | (changes or {})))
    if diagnostics is not None:
        path.with_name('diagnostics.json').write_text(json.dumps(diagnostics))
    return path


def test_runs_by_variant_and_seed(tmp_path):
    for seed in (10, 9):
        write(tmp_path, 'sft', seed)
    diagnostics = dict(base=dict(a=0.5, b=None))
    write(tmp_path, 'grqo', 0, dict(training=dict(grqo_kl=1)), diagnostics)
    write(tmp_path, 'older', 3)
    (tmp_path / 'grqo' / 'seed_1').mkdir()  # not finished
    (tmp_path / 'grqo' / 'seed_x').mkdir()
    (tmp_path / 'grqo' / 'seed_x' / 'result.json').write_text('no run of ours')

    runs, ignored = read_results(tmp_path, ['sft', 'grqo', 'gone'])
    assert {variant: list(of) for variant, of in runs.items()} == {
        'sft': [9, 10],
        'grqo': [0],
    }
    assert ignored == ['grqo/seed_x', 'older/seed_3']
    run = runs['grqo'][0]
    assert (run['steps'], run['train_seconds']) == (300, 251.2)
    assert run['training'] == dict(grqo_kl=1)
    assert run['metrics'] == {'base/g16': dict(AP=0.4, AP50=0.6)}
    assert run['diagnostics'] == diagnostics
    assert runs['sft'][9]['diagnostics'] == {}


def test_runs_of_version_0_5_are_read(tmp_path):
    path = write(tmp_path, 'sft', 0, diagnostics=dict(base=dict(a=0.5)))
    read = read_result(path)
    old = {
        'cell' if key == 'variant' else key: of for key, of in json.loads(path.read_text()).items()
    }
    path.write_text(json.dumps(old))
    path.with_name('diagnostics.json').rename(path.with_name('dynamics.json'))
    assert 'cell' in old and read_result(path) == read and read['diagnostics']['base']['a'] == 0.5


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder .*/none; run the study first'):
        read_results(tmp_path / 'none', ['sft'])
    assert read_results(tmp_path, ['sft']) == ({}, [])


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(steps='300'), ", steps is '300', not a int."),
        (dict(training=dict(grqo_kl='nan')), ": training, grqo_kl is 'nan', not a float."),
        (dict(training=[]), ', training is [], not a dict.'),
        (dict(metrics={'base/g16': 0.4}), ': base/g16 is 0.4, not a dict.'),
        (
            dict(metrics={'base/g16': dict(AP=0.4)}),
            ': base/g16 lacks AP50; its keys are AP, AP50.',
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, changes, said):
    path = write(tmp_path, 'sft', 0, changes)
    with pytest.raises(ValueError, match=re.escape(f'{path}{said} Delete the file and run the')):
        read_result(path)


def test_broken_files(tmp_path):
    path = write(tmp_path, 'sft', 0, diagnostics=dict(base=dict(a='b')))
    diagnostics = path.with_name('diagnostics.json')
    with pytest.raises(
        ValueError, match=f"^{diagnostics}: base, a is 'b', not a float. Delete the file"
    ):
        read_result(path)
    diagnostics.write_text('[]')
    with pytest.raises(ValueError, match=f'^{diagnostics} holds no JSON object. Delete the file'):
        read_result(path)
    diagnostics.unlink()
    lacking = {key: value for key, value in RESULT.items() if key != 'device'}
    path.write_text(json.dumps(lacking))
    with pytest.raises(ValueError, match=f'^{path} lacks device; .* Delete the file'):
        read_result(path)
    path.write_text(json.dumps(RESULT)[:-9])
    with pytest.raises(ValueError, match=f'^{path} is broken: .*Delete the file and run the study'):
        read_result(path)


def test_a_run_in_the_wrong_folder(tmp_path):
    write(tmp_path, 'sft', 1, dict(seed=0))
    with pytest.raises(
        ValueError, match="is of variant 'sft', seed 0, and lies in the wrong folder"
    ):
        read_results(tmp_path, ['sft'])
