"""The stages of the check of a GPU, each for a process of its own; most valuable parts first."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ...config.loading import load_config
from ...testing import ShapesConfig, generate_shapes
from ...utils.environment import describe_environment
from ..training.log import read_run
from .contenders import DINO_R1, NAMES, VIS_GDINO, build_contender, fit_classes
from .gpu_agreement import (
    BOUNDS,
    HALF_BOUND,
    WORKLOAD,
    largest_differences,
    listen,
    small_config,
    small_model,
    take_steps,
    true_float32,
)
from .kernel_profile import profile_steps
from .measure import inference_figures
from .report import assess_all
from .stage_runner import Record
from .streaming import streaming_figures
from .suite import CLASS_COUNTS, Suite, open_device
from .workload import Workload

GPU_TESTS = Path(__file__).resolve().parents[3] / 'tests' / 'test_gpu.py'


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    config: str = 'dino_r1_swin_t_coco.py'
    workload: Workload = Workload()
    steps: int = 10  # of each precision
    rounds: int = 2
    classes: tuple[int, ...] = CLASS_COUNTS  # of inference
    streamed: int = 320  # images that `detect` reads
    # of the real training
    shapes: dict = field(default_factory=lambda: dict(train_images=400, val_images=64))
    training_steps: int = 120


TINY = Sizes(
    config='dino_r1_r18_shapes.py',
    workload=Workload(height=64, width=96, batch_size=1, classes=5, boxes=3),
    steps=2,
    rounds=1,
    classes=(5, 130),
    streamed=12,
    shapes=dict(image_size=64, num_base_classes=4, train_images=16, val_images=4),
    training_steps=6,
)


def _agreement(record: Record, sizes: Sizes) -> None:
    """Versions, CPU against device, half precision."""
    device = open_device(None)
    with record.part('versions'):
        said = describe_environment(device)
        if device.type == 'cuda':
            card = torch.cuda.get_device_properties(device)
            said['memory of the card, GiB'] = card.total_memory / 2**30
            said['compute capability'] = f'{card.major}.{card.minor}'
            said['CUDA, cuDNN'] = f'{torch.version.cuda}, {torch.backends.cudnn.version()}'
        record.add('environment', said)
    cfg = small_config()
    with record.part('CPU against device'):
        with true_float32():
            on_cpu = listen(cfg, torch.device('cpu'))
            found = largest_differences(on_cpu, listen(cfg, device))
        as_it_comes = largest_differences(on_cpu, listen(cfg, device))
        rows = [
            {
                '': kind,
                'true float32': found[kind]['difference'],
                'bound': bound,
                'worst': found[kind]['worst'],
                'as it comes (TF32 where cuDNN takes it)': as_it_comes[kind]['difference'],
            }
            for kind, bound in BOUNDS.items()
        ]
        record.add('largest differences from the CPU, relative', rows)
        for row in rows:
            holds = row['true float32'] <= row['bound']
            record.check(holds, f'{row[""]} differ from the CPU by {row["true float32"]:.1e}')
    rows = []
    for dtype in ('bfloat16', 'float16'):
        with record.part(dtype):
            model = small_model(cfg, device).model.train()
            batches = [WORKLOAD.training_batch() for _ in range(2)]
            rows.append(take_steps(model, cfg, dtype, batches))
            record.add('training the small model', rows)
            _check_steps(record, rows[-1])
            distance = abs(rows[-1]['first loss'] / float(on_cpu['losses']['loss']) - 1)
            record.check(distance < HALF_BOUND, f'the loss in {dtype} is {distance:.0%} off')


def _gpu_tests(record: Record, sizes: Sizes) -> None:
    """``tests/test_gpu.py`` where it lies beside the package; its last line is kept."""
    if open_device(None).type != 'cuda':
        record.add('GPU tests', 'not run: there is no CUDA device')
        return
    if not GPU_TESTS.is_file():
        record.add('GPU tests', 'not run: the package was installed without its tests')
        return
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(GPU_TESTS)]
    root, last = GPU_TESTS.parents[1], ''
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            print(line, end='', flush=True)
            last = line.strip() or last
    record.add('GPU tests', last)
    record.check(process.returncode == 0, 'the GPU tests failed')


def _steps(record: Record, sizes: Sizes) -> None:
    """Steps of the whole model as a training takes them, ``--amp`` and activation checkpointing."""
    cfg = fit_classes(load_config(sizes.config), sizes.workload.classes)
    torch.manual_seed(0)
    contender = build_contender(DINO_R1, cfg, open_device(None), torch.float32, recompute=True)
    model = contender.model.train()
    weights = {name: value.to('cpu', copy=True) for name, value in model.state_dict().items()}
    rows = []
    for dtype in ('bfloat16', 'float32', 'float16'):
        with record.part(dtype):
            model.load_state_dict(weights)  # each begins anew
            batches = [sizes.workload.training_batch(seed) for seed in range(sizes.steps)]
            rows.append(take_steps(model, cfg, dtype, batches))
            record.add('steps', rows)
            _check_steps(record, rows[-1])


def _check_steps(record: Record, row: dict) -> None:
    for key in ('finite', 'fused AdamW'):
        record.check(row[key], f'training in {row["precision"]}: not {key}')


def _speed(record: Record, sizes: Sizes) -> None:
    """The benchmark beside mmdet's Grounding DINO, and what the card waits for."""
    cfg, rounds = load_config(sizes.config), sizes.rounds
    suite = Suite(cfg, sizes.workload, open_device(None), torch.bfloat16, rounds=rounds)
    suite.contenders = {}
    for name in NAMES:  # ours are worth measuring without mmdet's
        with record.part(f'building {name}'):
            suite.contenders[name] = suite.build(name)
    models, figures = list(suite.contenders.values()), dict(bfloat16={}, float32={})

    def keep(dtype: str, section: str, found: dict) -> None:
        figures[dtype].setdefault(section, {})
        for name, of in found.items():
            figures[dtype][section].setdefault(name, {}).update(of)
        record.add(dtype, dict(targets=assess_all(figures[dtype])) | figures[dtype])

    with record.part('training in bfloat16'):
        keep('bfloat16', 'training', suite.training())
    for name in (DINO_R1, VIS_GDINO):
        with record.part(f'profile of {name}'):
            found = profile_steps(suite.contenders[name], sizes.workload)
            record.add(f'profile of {name}', found)
    if suite.device.type == 'cuda':
        with record.part('memory'):
            keep('bfloat16', 'memory', suite.memory())
    with record.part('training in float32'):
        for model in models:
            model.dtype = torch.float32
        keep('float32', 'training', suite.training())
    for model in models:
        model.dtype = torch.bfloat16
    for count in sizes.classes:
        with record.part(f'inference of {count} classes'):
            found = inference_figures(models, sizes.workload, (count,), rounds)
            keep('bfloat16', 'inference', found)


def _detect(record: Record, sizes: Sizes) -> None:
    """Detection in files, beside the model alone."""
    with record.part('detect'):
        given = load_config(sizes.config), sizes.streamed, 4 * sizes.workload.batch_size
        found = streaming_figures(*given, sizes.rounds, open_device(None))
        record.add('detect', found)


def _training(record: Record, sizes: Sizes) -> None:
    """A real training with ``--amp`` on drawn shapes: killed, resumed, and tested at its end."""
    with TemporaryDirectory() as folder, record.part('training'):
        shapes = ShapesConfig(**sizes.shapes | _ONE_NOVEL)
        data, run = generate_shapes(Path(folder, 'shapes'), shapes), Path(folder, 'run')
        every = sizes.training_steps // 3
        command = [sys.executable, '-m', 'mmdet_dino_r1.tools.train', 'dino_r1_r18_shapes.py']
        command += ['--amp', '--work-dir', str(run), '--cfg-options']
        command += [f'{split}_dataloader.dataset.data_root={data}/' for split in _SPLITS]
        validated = f'{data}/annotations/val.json'
        command += [f'{split}_evaluator.ann_file={validated}' for split in _SPLITS[1:]]
        command += [f'train_cfg.max_iters={3 * every}', f'train_cfg.val_interval={3 * every}']
        command += ['optim_wrapper.dtype=bfloat16', f'default_hooks.checkpoint.interval={every}']
        command += [f'{key}={max(1, every // 4)}' for key in _LOGGED_EVERY]
        with subprocess.Popen(command) as process:
            while (saved := _last_checkpoint(run)) is None and process.poll() is None:
                time.sleep(0.1)
            process.kill()
        status = subprocess.run([*command, '--resume']).returncode
        record.check(status == 0, f'the resumed training ended with status {status}')
        rows = read_run(run)
        logs = sorted(run.glob('*/vis_data/scalars.json'))
        resumed = read_run(logs[-1])[0]['step'] if len(logs) > 1 else None
        told = {'killed after step': saved, 'first step logged after that': resumed}
        record.add('killed and resumed', told)
        record.check(None not in told.values() and resumed > saved, 'it was not resumed')
        steps = [row for row in rows if 'loss' in row]
        figures = {'steps': steps[-1]['step'], 'loss at first': steps[0]['loss']}
        figures |= {'loss at last': steps[-1]['loss'], 'step, s': steps[-1]['time']}
        record.add('training', figures | {'AP': rows[-1].get('coco/bbox_mAP')})
        record.check('coco/bbox_mAP' in rows[-1], 'it was not tested')


_ONE_NOVEL = dict(num_novel_classes=1, val_novel_images=1, prompts_novel_images=1)  # not used
_SPLITS = ('train', 'val', 'test')
_LOGGED_EVERY = ('default_hooks.logger.interval', 'log_processor.window_size')


def _last_checkpoint(run: Path) -> int | None:
    """The step of a run's last checkpoint, None while there is none."""
    with suppress(FileNotFoundError, ValueError):
        name = Path((run / 'last_checkpoint').read_text()).name
        if (run / name).exists():
            return int(Path(name).stem.rpartition('_')[2])
    return None


# by name, with the share of the time that each may take at most; the last one gets what is left
STAGES: dict[str, tuple[Callable[[Record, Sizes], None], float]] = {
    'agreement': (_agreement, 1 / 6),
    'tests': (_gpu_tests, 1 / 6),
    'steps': (_steps, 1 / 8),
    'speed': (_speed, 1 / 3),
    'detect': (_detect, 1 / 10),
    'training': (_training, 1.0),
}
