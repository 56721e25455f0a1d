"""A study of two variants and two seeds, from the command line to its report.

Starting Python with mmdet takes seconds, so one run is a real process and the others are done in
this one. What is compared to the last digit is of these: threads add up in another order.
"""

import json
import os
import signal
import sys
import threading
import time

import pytest
import torch
from conftest import TINY_SHAPES
from mmengine.runner import Runner
from test_engine.test_runner import tiny_cfg

from mmdet_dino_r1.lab.study.conduct import draw_data
from mmdet_dino_r1.lab.study.grid import Run, evaluation_config, load_grid, training_config
from mmdet_dino_r1.lab.study.run import claim
from mmdet_dino_r1.testing import shapes_checksums
from mmdet_dino_r1.tools.study import main, parse_args
from mmdet_dino_r1.utils.safe_files import load_torch_file

BANK = 'default_hooks.prompt_bank.bank'


def write_grid(folder, data, name, **changes):
    """A grid of two tiny variants; mmengine keeps runs by name, so each grid has its own."""
    for config in ('vis_gdino', 'dino_r1'):
        cfg = tiny_cfg(data, folder / 'unused', f'{config}_r18_shapes.py', by_epoch=False)
        text = '\n'.join(f'{key} = {value!r}' for key, value in cfg.to_dict().items())
        (folder / f'{config}.py').write_text(text)
    novel = {
        'test_dataloader.dataset.ann_file': 'annotations/val_novel.json',
        'test_evaluator.ann_file': f'{data}/annotations/val_novel.json',
        f'{BANK}.data_root': f'{data}/',
        f'{BANK}.ann_file': 'annotations/prompts_novel.json',
        f'{BANK}.data_prefix': dict(img=''),
        f'{BANK}.shots': 16,
    }
    content = dict(
        name=name,
        common={
            'val_cfg': None,
            'val_dataloader': None,
            'val_evaluator': None,
            'train_cfg.max_iters': 3,
        },
        variants=dict(
            sft=dict(config=str(folder / 'vis_gdino.py'), title='supervised'),
            grqo=dict(config=str(folder / 'dino_r1.py'), title='with GRQO'),
        ),
        comparisons=[dict(title='1. Does it help?', baseline='sft', variants=['grqo'], seeds=2)],
        evaluations={
            'base/g1': {f'{BANK}.shots': 1},
            'novel/g16': novel,
            'base/i': {'default_hooks.prompt_bank.protocol': 'visual_i'},
        },
        primary=['base/g1', 'novel/g16'],
        diagnostics=['novel/g16'],
    )
    path = folder / f'{name}.py'
    text = [f'{key} = {value!r}' for key, value in {**content, **changes}.items()]
    path.write_text('\n'.join(text))
    return str(path)


@pytest.fixture(scope='module')
def study(tiny_shapes, tmp_path_factory):
    """Grid file and folder of a finished study: one run in a process, the others in this one."""
    folder = tmp_path_factory.mktemp('study')
    grid, out = write_grid(folder, tiny_shapes, 'whole'), folder / 'out'
    assert main([grid, '--out', str(out), '--variants', 'sft', '--seeds', '1']) == 0
    for run in ('grqo 0', 'sft 1', 'grqo 1'):
        assert main([grid, '--out', str(out), '--run', *run.split()]) == 0
    return grid, out


def result_of(out, variant, seed):
    return json.loads((out / variant / f'seed_{seed}' / 'result.json').read_text())


def weights_of(out, variant, seed):
    return load_torch_file(out / variant / f'seed_{seed}' / 'weights.pth')['state_dict']


def test_what_runs_leave(study):
    out = study[1]
    for variant in ('sft', 'grqo'):
        for seed in (0, 1):
            folder = out / variant / f'seed_{seed}'
            result = result_of(out, variant, seed)
            assert (result['variant'], result['seed'], result['steps']) == (variant, seed, 3)
            assert result['metrics'].keys() == {'base/g1', 'novel/g16', 'base/i'}
            assert all(of.keys() == {'AP', 'AP50'} for of in result['metrics'].values())
            assert ('grqo_kl' in result['training']) == (variant == 'grqo')
            assert result['data'] == {} and result['train_seconds'] > 0
            diagnostics = json.loads((folder / 'diagnostics.json').read_text())
            assert diagnostics.keys() == {'novel'} and diagnostics['novel']['num_images'] == 4
            assert [path.name for path in folder.glob('*.pth*')] == ['weights.pth']
            assert not (folder / 'last_checkpoint').exists()
            assert (folder / 'fingerprint').read_text() == result['fingerprint']
    assert (out / 'sft' / 'seed_0' / 'log.txt').stat().st_size > 1000
    assert not (out / 'sft' / 'seed_1' / 'log.txt').exists()
    assert len({result_of(out, *run)['fingerprint'] for run in (('sft', 0), ('sft', 1))}) == 2


def test_metrics_are_those_of_a_test_by_hand(study, tmp_path):
    grid, out = load_grid(study[0]), study[1]
    cfg = training_config(grid, Run(grid.variants['grqo'], 1), out)
    cfg = evaluation_config(cfg, grid, 'novel/g16', 1)
    assert cfg.default_hooks.prompt_bank.bank.seed == 1
    cfg.load_from = str(out / 'grqo' / 'seed_1' / 'weights.pth')
    cfg.work_dir, cfg.experiment_name = str(tmp_path), 'by_hand'
    metrics = Runner.from_cfg(cfg).test()
    assert result_of(out, 'grqo', 1)['metrics']['novel/g16'] == dict(
        AP=metrics['coco/bbox_mAP'], AP50=metrics['coco/bbox_mAP_50']
    )


def test_nothing_is_done_twice(study, capsys):
    grid, out = study
    files = [*out.glob('*/seed_*/weights.pth'), *out.glob('*/seed_*/result.json')]
    assert len(files) == 8
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
    assert main([grid, '--out', str(out)]) == 0
    assert before == [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
    shown = capsys.readouterr().out
    assert 'whole: 4 of 4 runs are done' in shown and f'wrote {out}/report.md' in shown
    text = (out / 'report.md').read_text()
    assert '1. Does it help?' in text and 'with GRQO' in text and 'missing' not in text
    assert json.loads((out / 'report.json').read_text())['seeds'] == [0, 1]
    assert (out / 'comparison_1_differences.png').is_file()


def test_a_missing_test_alone_is_done_again(study):
    grid, out = study
    path = out / 'sft' / 'seed_1' / 'result.json'
    whole = result_of(out, 'sft', 1)
    lacking = result_of(out, 'sft', 1)
    expected = lacking['metrics'].pop('base/i')
    lacking['metrics']['base/g1'] = marked = dict(AP=0.5, AP50=0.75)
    path.write_text(json.dumps(lacking))
    inode = path.with_name('weights.pth').stat().st_ino
    try:
        assert main([grid, '--out', str(out), '--run', 'sft', '1']) == 0
        after = result_of(out, 'sft', 1)['metrics']
        assert after['base/g1'] == marked and after['base/i'] == expected
        assert path.with_name('weights.pth').stat().st_ino == inode
    finally:
        path.write_text(json.dumps(whole))


def test_a_training_that_was_stopped_goes_on(study, tiny_shapes, tmp_path):
    path = write_grid(
        tmp_path,
        tiny_shapes,
        'stopped',
        evaluations={'base/i': {}},
        primary=['base/i'],
        diagnostics=[],
    )
    out, grid = tmp_path / 'out', load_grid(path)
    run = Run(grid.variants['grqo'], 1)
    cfg = training_config(grid, run, out)
    cfg.train_cfg.max_iters = 2
    cfg.default_hooks.checkpoint.interval = 1
    cfg.experiment_name = cfg.visualizer.name = 'cut'
    Runner.from_cfg(cfg).train()
    folder = run.folder(out)
    assert {path.name for path in folder.glob('*.pth')} == {'iter_1.pth', 'iter_2.pth'}
    # a study may be moved, and figures of weights that are gone are none
    (folder / 'last_checkpoint').write_text('/elsewhere/iter_2.pth')
    (folder / 'diagnostics.json').write_text('{"base": {}}')
    (out / 'data.json').write_text('{}')

    assert main([path, '--out', str(out), '--run', 'grqo', '1']) == 0
    assert [path.name for path in folder.glob('*.pth')] == ['weights.pth']
    assert not (folder / 'diagnostics.json').exists()
    result, expected = result_of(out, 'grqo', 1), result_of(study[1], 'grqo', 1)
    assert result['steps'] == 3
    assert result['training'] == pytest.approx(expected['training'], rel=1e-5)
    weights, others = weights_of(out, 'grqo', 1), weights_of(study[1], 'grqo', 1)
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_a_run_of_another_process_is_left_alone(study, tmp_path):
    grid, out = study
    (tmp_path / 'data.json').write_text('{}')
    folder = tmp_path / 'sft' / 'seed_0'
    folder.mkdir(parents=True)
    with claim(folder):
        assert main([grid, '--out', str(tmp_path), '--run', 'sft', '0']) == 3
    assert [path.name for path in folder.iterdir()] == ['lock']


@pytest.mark.parametrize('finished', [True, False])
def test_other_settings_are_refused(study, tiny_shapes, tmp_path, capsys, finished):
    out = study[1]
    if not finished:
        out = tmp_path / 'begun'
        (out / 'sft' / 'seed_0').mkdir(parents=True)
        (out / 'sft' / 'seed_0' / 'fingerprint').write_text('0123456789abcdef')
    grid = write_grid(tmp_path, tiny_shapes, 'other', common={'train_cfg.max_iters': 4})
    assert main([grid, '--out', str(out), '--variants', 'sft']) == 2
    assert (
        f"study: {out}/sft/seed_0 holds a run of the variant 'sft' that was trained with other "
        'settings. Delete the folder, or choose another --out.'
    ) in capsys.readouterr().err


def variants_of(tmp_path, **options):
    return dict(
        sft=dict(config=str(tmp_path / 'vis_gdino.py'), options=options),
        grqo=dict(config=str(tmp_path / 'dino_r1.py')),
    )


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'model.bbox_head.loss_gqro': dict()}, ['the variant sft', 'model.bbox_head.loss_gqro']),
        (
            {'test_dataloader.dataset.ann_file': 'no.json'},
            ['the variant sft, evaluation', 'no.json'],
        ),
        (
            {'default_hooks.logger.interval': 9},
            ['the variant sft: it trains 3 steps and logs every 9'],
        ),
        (
            {'test_evaluator.metric': 'proposal'},
            ['the variant sft: its test_evaluator gives no coco/'],
        ),
        (
            {'train_dataloader.dataset.pipeline.99.scale': 3},
            ['the variant sft: its options do not'],
        ),
    ],
)
def test_checks_come_before_training(tiny_shapes, tmp_path, capsys, options, said):
    grid = write_grid(tmp_path, tiny_shapes, 'wrong', variants=variants_of(tmp_path, **options))
    out = tmp_path / 'out'
    assert main([grid, '--out', str(out)]) == 2
    told = capsys.readouterr().err
    assert all(part in told for part in ['study: ', *said])
    assert sorted(path.name for path in out.iterdir()) == ['data.json', 'lock']


@pytest.mark.parametrize(
    ('args', 'said'),
    [
        ('--variants sft gqro', '--variants gqro: the grid has sft, grqo.'),
        ('--run gqro 0', '--run gqro: the grid has sft, grqo.'),
        ('--run sft 2', '--run sft 2: the grid runs sft with the seeds 0, 1.'),
        ('--run sft one', '--run sft one: the grid runs sft with the seeds 0, 1.'),
        ('--run sft 0', 'empty/data.json is not there: start the study without --run'),
        ('--report', 'empty has no finished run of whole; run the study first.'),
    ],
)
def test_a_wrong_command_is_told(study, tmp_path, capsys, args, said):
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert main([study[0], '--out', str(empty), *args.split()]) == 2
    assert said in capsys.readouterr().err and not any(empty.iterdir())


def test_folders_that_cannot_be(study, tmp_path, capsys):
    assert main([study[0], '--out', str(tmp_path / 'no'), '--report']) == 2
    assert f'There is no folder {tmp_path}/no; run the study first.' in capsys.readouterr().err
    (tmp_path / 'file').touch()
    assert main([study[0], '--out', str(tmp_path / 'file')]) == 2
    told = capsys.readouterr().err
    assert 'study: ' in told and 'File exists' in told and f'{tmp_path}/file' in told


@pytest.mark.parametrize('jobs', ['0', 'x'])
def test_a_wrong_number(jobs, capsys):
    with pytest.raises(SystemExit):
        parse_args(['grid.py', '--out', 'out', '--jobs', jobs])
    assert f'--jobs: {jobs!r} is not a number of at least 1' in capsys.readouterr().err


def test_broken_files_are_named(study, tmp_path, capsys):
    grid, out = study
    for name in ('result.json', 'diagnostics.json'):
        path = out / 'sft' / 'seed_0' / name
        content = path.read_text()
        try:
            path.write_text(content[:-20])
            assert main([grid, '--out', str(out)]) == 2
        finally:
            path.write_text(content)
        told = capsys.readouterr().err
        assert f'study: {path} is broken: ' in told and 'Delete the file and run the' in told


def test_lost_weights_are_named(study, capsys):
    grid, out = study
    folder = out / 'sft' / 'seed_1'
    result = (folder / 'result.json').read_text()
    lacking = json.loads(result)
    del lacking['metrics']['base/i']
    try:
        (folder / 'result.json').write_text(json.dumps(lacking))
        (folder / 'weights.pth').rename(folder / 'away')
        assert main([grid, '--out', str(out), '--run', 'sft', '1']) == 2
    finally:
        (folder / 'away').rename(folder / 'weights.pth')
        (folder / 'result.json').write_text(result)
    told = capsys.readouterr().err
    assert 'weights.pth is gone, and' in told and 'lacks the test base/i. Delete the folder' in told


# ------------------------------------------------------- processes that do not do what they should
@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Stands in for Python: notes its last two arguments, then does as told."""

    def put(what):
        path = tmp_path / 'python'
        path.write_text(
            f'#!/bin/sh\nfor last; do cell=$seed; seed=$last; done\n'
            f'echo "$cell $seed $$" >> {tmp_path}/begun\n{what}\n'
        )
        path.chmod(0o755)
        monkeypatch.setattr(sys, 'executable', str(path))
        return tmp_path / 'begun'

    return put


def test_a_run_that_fails_does_not_stop_the_others(tiny_shapes, tmp_path, stub, capsys):
    grid, out = write_grid(tmp_path, tiny_shapes, 'fails'), tmp_path / 'out'
    begun = stub('[ $cell = grqo ] && exit 3\necho no memory; exit 1')
    assert main([grid, '--out', str(out), '--jobs', '1']) == 1
    assert [line.split()[:2] for line in begun.read_text().splitlines()] == [
        ['sft', '0'],
        ['grqo', '0'],
        ['sft', '1'],
        ['grqo', '1'],
    ]
    shown = capsys.readouterr()
    for seed in (0, 1):
        log = out / 'sft' / f'seed_{seed}' / 'log.txt'
        assert f'study: sft, seed {seed} failed; see {log}' in shown.err
        assert log.read_text() == 'no memory\n'
        assert f'sft, seed {seed}: FAILED after 0.0 min' in shown.out
        assert f'grqo, seed {seed}: left to another process after 0.0 min' in shown.out
    assert 'Traceback' not in shown.err


def test_ctrl_c_ends_all_processes(tiny_shapes, tmp_path, stub, capsys):
    grid, out = write_grid(tmp_path, tiny_shapes, 'interrupted'), tmp_path / 'out'
    begun = stub('exec sleep 60')

    def interrupt():
        while not begun.exists() or len(begun.read_text().splitlines()) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        assert main([grid, '--out', str(out), '--jobs', '2']) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    shown = capsys.readouterr()
    assert shown.err.endswith('study: stopped; the same command goes on from here\n')
    assert 'FAILED' not in shown.out and 'Traceback' not in shown.err
    started = [line.split() for line in begun.read_text().splitlines()]
    assert sorted(line[:2] for line in started) == [['grqo', '0'], ['sft', '0']]
    for *_, process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


# ------------------------------------------------------------------------------------------ data
def test_the_sets_that_a_grid_names(tiny_shapes, tmp_path, capsys):
    def draw(**changes):
        shapes = {str(tiny_shapes): TINY_SHAPES | changes}
        name = f'data-{len(changes)}'
        return draw_data(load_grid(write_grid(tmp_path, tiny_shapes, name, shapes=shapes)))

    sums = shapes_checksums(tiny_shapes)
    assert draw(checksums=sums) == {str(tiny_shapes): sums}
    assert capsys.readouterr().err == ''
    draw(checksums=dict(sums, pixels='x'))
    assert f'pixels differ from those of data-1 ({sums["pixels"]}' in capsys.readouterr().err
    with pytest.raises(ValueError, match=f'{tiny_shapes} is not the set of data-1: checksum of'):
        draw(checksums=dict(annotations='x'))
    with pytest.raises(FileExistsError, match=f'{tiny_shapes} holds a shapes set of other sett'):
        draw(seed=1)
