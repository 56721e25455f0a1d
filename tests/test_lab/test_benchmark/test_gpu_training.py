"""What the training of the GPU check runs and reads; its own test is in ``test_gpu_check``."""

import json

from mmdet_dino_r1.checks.config_keys import misspelt_keys
from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, VIS_GDINO
from mmdet_dino_r1.lab.benchmark.gpu_training import (
    CELLS,
    FULL,
    first_step_of_the_last_start,
    pairs_of,
    read_runs,
    write_grid,
)
from mmdet_dino_r1.lab.study.grid import evaluation_config, load_grid, training_config
from mmdet_dino_r1.lab.study.run import explain_unmeasured


def test_the_grid_of_a_whole_run(tmp_path):
    """Two cells that differ by GRQO alone, on a Swin-T that needs no file."""
    grid = load_grid(write_grid(FULL, tmp_path, steps=60))
    runs = list(grid.runs())
    assert [(run.cell.name, run.seed) for run in runs[:3]] == [
        ('dino_r1', 0),
        ('vis_gdino', 0),
        ('dino_r1', 1),
    ]
    configs = [training_config(grid, run, tmp_path / 'study') for run in runs[:2]]
    for cfg in configs:
        assert not misspelt_keys(cfg) and explain_unmeasured(cfg) is None
        assert cfg.model.backbone.type == 'FusedSwinTransformer'
        assert cfg.model.backbone.init_cfg is None and cfg.model.text_alignment is None
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper.dtype == 'bfloat16'
        assert cfg.train_cfg.max_iters == 60 and cfg.default_hooks.checkpoint.interval == 20
        assert cfg.train_dataloader.batch_size == 16
        novel = evaluation_config(cfg, grid, 'novel', 0)
        assert novel.test_evaluator.ann_file == f'{tmp_path}/shapes/annotations/val_novel.json'
        assert novel.test_dataloader.dataset.pipeline[1].scale == (256, 256)
    grqo, sft = (cfg.to_dict() for cfg in configs)
    assert grqo['model']['bbox_head'].pop('loss_grqo')['type'] == 'GRQOLoss'
    sft['model']['bbox_head'].pop('loss_grqo', None)
    grqo['default_hooks'].pop('reference_model')
    differing = {key for key in grqo if grqo[key] != sft.get(key)}
    assert differing <= {'work_dir', 'grqo', 'reference_model', 'start_epoch'}


def write_log(run, start, steps):
    folder = run / start / 'vis_data'
    folder.mkdir(parents=True)
    rows = [json.dumps(dict(loss=2.0, time=0.5, step=step)) for step in steps]
    (folder / 'scalars.json').write_text('\n'.join(rows))


def test_a_run_that_was_resumed_and_one_that_is_not_finished(tmp_path):
    resumed, other = (tmp_path / cell / 'seed_0' for cell in CELLS)
    write_log(resumed, '20260101_000000', [10, 20])
    assert first_step_of_the_last_start(resumed) is None, 'started once'
    write_log(resumed, '20260101_000100', [30, 40])
    assert first_step_of_the_last_start(resumed) == 30
    metrics = {split: dict(AP=0.25, AP50=0.5) for split in ('base', 'novel')}
    result = dict(seconds_per_step=0.4, metrics=metrics)
    (resumed / 'result.json').write_text(json.dumps(result))
    write_log(other, '20260101_000000', [10])

    finished, running = read_runs(tmp_path, seeds=2)
    assert (finished['model'], finished['steps'], finished['AP50 novel']) == (DINO_R1, 40, 0.5)
    assert (running['model'], running['steps'], running['AP base']) == (VIS_GDINO, 10, None)
    assert (finished['seconds a step'], running['seconds a step']) == (0.4, 0.5)
    assert pairs_of([finished, running]) == []


def test_pairs_need_both_runs():
    def run(seed, model, ap):
        values = {
            f'{metric} {split}': ap for metric in ('AP', 'AP50') for split in ('base', 'novel')
        }
        return dict(seed=seed, model=model, **values)

    runs = [run(0, DINO_R1, 0.5), run(0, VIS_GDINO, 0.25), run(1, DINO_R1, 0.5)]
    runs.append(run(1, VIS_GDINO, None))
    assert pairs_of(runs) == [
        {'seed': 0, 'AP base': 0.25, 'AP50 base': 0.25, 'AP novel': 0.25, 'AP50 novel': 0.25}
    ]
