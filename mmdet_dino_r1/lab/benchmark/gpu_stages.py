"""The stages of the check of a GPU, each for a process of its own; most valuable parts first."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from ...config.loading import load_config
from ...utils.environment import describe_environment
from . import gpu_training
from .contenders import DINO_R1, NAMES, VIS_GDINO, Contender, build_contender, fit_classes
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
from .measure import inference_figures, step_memory, time_step, training_figures
from .stage_runner import Record
from .suite import open_device
from .workload import Workload

# Changes of the config by name. The first are the models as they come, timed in every respect and
# beside mmdet's; ours are timed in training with each of the others as well.
VARIANTS: dict[str, dict] = {'plain': {}}
PLAIN = next(iter(VARIANTS))
TRAINING_STEP = "a step of the training stage's size"
_GPU_TESTS = Path(__file__).resolve().parents[3] / 'tests' / 'test_gpu.py'


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        config: of the models that take steps and are timed.
        workload: images and boxes of these.
        steps: of each precision.
        rounds: of the timings.
        classes: numbers of classes of inference.
        training: of the real training.
    """

    config: str = 'dino_r1_swin_t_coco.py'
    workload: Workload = Workload()
    steps: int = 10
    rounds: int = 2
    classes: tuple[int, ...] = (80, 1203)
    training: gpu_training.TrainingSizes = gpu_training.FULL


TINY = Sizes(
    config='dino_r1_r18_shapes.py',
    workload=Workload(height=64, width=96, batch_size=1, classes=5, boxes=3),
    steps=2,
    rounds=1,
    classes=(5, 130),
    training=gpu_training.TINY,
)


def run_stage(name: str, folder: Path, sizes: Sizes, seconds: float) -> None:
    """Run one stage in this process.

    Args:
        name: one of ``STAGES``.
        folder: of the records, that of this stage among them.
        sizes: of everything.
        seconds: that the stage has.
    """
    record = Record(folder / f'{name}.json')
    with DefaultScope.overwrite_default_scope('mmdet'):
        STAGES[name](record, sizes, seconds)


# ------------------------------------------------------------------- agreement
def agreement(record: Record, sizes: Sizes, seconds: float) -> None:
    """Versions, CPU against device, half precision, the tests that need a GPU.

    Args: as for :func:`run_stage`, and where to write.
    """
    until, device = time.monotonic() + seconds, open_device(None)
    with record.part('versions'):
        record.add('environment', _environment(device))
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
    with record.part('GPU tests'):
        told = 'not run: there is no CUDA device'
        if device.type == 'cuda':
            told = _gpu_tests(until - time.monotonic(), record)
        record.add('GPU tests', told)


def _environment(device: torch.device) -> dict:
    said = describe_environment(device)
    if device.type == 'cuda':
        card = torch.cuda.get_device_properties(device)
        said['memory of the card, GiB'] = card.total_memory / 2**30
        said['compute capability'] = f'{card.major}.{card.minor}'
        said['CUDA, cuDNN'] = f'{torch.version.cuda}, {torch.backends.cudnn.version()}'
    return said


def _gpu_tests(seconds: float, record: Record) -> str:
    """The last line of pytest, or why it was not run."""
    if not _GPU_TESTS.is_file():
        return 'not run: the package was installed without its tests'
    try:
        import pytest  # noqa: F401
    except ImportError:
        return 'not run: pytest is not installed'
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(_GPU_TESTS)]
    log = record.path.with_name('pytest.log')
    try:
        with log.open('wb') as output:
            status = subprocess.run(
                command,
                cwd=_GPU_TESTS.parents[1],
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=max(1.0, seconds - 2),
            ).returncode
    finally:
        told = log.read_text(errors='replace')
        print(told, flush=True)
    record.check(status == 0, 'the GPU tests failed')
    return told.strip().rpartition('\n')[2]


# ------------------------------------------------------------------------ steps
def steps(record: Record, sizes: Sizes, seconds: float) -> None:
    """Steps of the whole model as a training takes them, ``--amp`` and activation checkpointing.

    Args: as for :func:`run_stage`, and where to write.
    """
    device = open_device(None)
    cfg = fit_classes(load_config(sizes.config, None), sizes.workload.classes)
    torch.manual_seed(0)
    model = build_contender(DINO_R1, cfg, device, torch.float32, recompute=True).model.train()
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


# ------------------------------------------------------------------------ speed
def speed(record: Record, sizes: Sizes, seconds: float) -> None:
    """The benchmark beside mmdet's Grounding DINO, and what the card waits for.

    Args: as for :func:`run_stage`, and where to write.
    """
    device, workload = open_device(None), sizes.workload
    base = load_config(sizes.config, None)
    figures: dict[str, dict] = {'bfloat16': {}, 'float32': {}}

    def contenders(names: tuple[str, ...], options: dict) -> list[Contender]:
        cfg = copy.deepcopy(base)
        cfg.merge_from_dict(copy.deepcopy(options))
        return [_contender(name, cfg, device, workload) for name in names]

    def keep(dtype: str, section: str, found: dict) -> None:
        figures[dtype].setdefault(section, {}).update(found)
        record.add(dtype, figures[dtype])

    models = []
    for name in NAMES:
        with record.part(f'building {name}'):
            models += contenders((name,), VARIANTS[PLAIN])
    ours = [model for model in models if model.name in (DINO_R1, VIS_GDINO)]
    with record.part('training in bfloat16'):
        keep('bfloat16', 'training', training_figures(models, workload, sizes.rounds))
    for model in reversed(ours):  # DINO-R1 first
        with record.part(f'profile of {model.name}'):
            record.add(f'profile of {model.name}', profile_steps(model, workload))
    with record.part(TRAINING_STEP):
        of = sizes.training
        side, classes = of.shapes['image_size'], of.shapes['num_base_classes']
        small = Workload(side, side, of.batch_size, classes, boxes=5)
        dino_r1 = ours[-1]
        dino_r1.clock.restart(on=False)
        taken = [time_step(dino_r1, small.training_batch(seed)) for seed in range(4)]
        record.add(TRAINING_STEP, {'seconds': median(taken[1:])})
    if device.type == 'cuda':
        with record.part('memory'):
            keep('bfloat16', 'memory', {m.name: step_memory(m, workload) for m in models})
    for name, options in list(VARIANTS.items())[1:]:
        with record.part(f'training in bfloat16, {name}'):
            variant = contenders((VIS_GDINO, DINO_R1), options)
            told = training_figures(variant, workload, sizes.rounds)
            record.add(f'training in bfloat16, {name}', {n: of['step'] for n, of in told.items()})
    with record.part('training in float32'):
        for model in models:
            model.dtype = torch.float32
        keep('float32', 'training', training_figures(models, workload, sizes.rounds))
    for model in models:
        model.dtype = torch.bfloat16
    for count in sizes.classes:
        with record.part(f'inference of {count} classes'):
            for name, told in inference_figures(models, workload, (count,), sizes.rounds).items():
                so_far = figures['bfloat16'].get('inference', {}).get(name, {})
                keep('bfloat16', 'inference', {name: so_far | told})


def _contender(name: str, cfg: ConfigDict, device: torch.device, workload: Workload) -> Contender:
    torch.manual_seed(0)
    cfg = fit_classes(cfg, workload.classes)
    return build_contender(name, cfg, device, torch.bfloat16, recompute=False)


# --------------------------------------------------------------------- training
def training(record: Record, sizes: Sizes, seconds: float) -> None:
    """A real training, killed and resumed, and pairs of SFT and GRQO.

    Args: as for :func:`run_stage`, and where to write.
    """
    timed = record.path.with_name('speed.json')
    step = None
    if timed.exists():
        step = json.loads(timed.read_text())['figures'].get(TRAINING_STEP, {}).get('seconds')
    with record.part('training'):
        gpu_training.train_pairs(
            record, sizes.training, record.path.with_name('training'), seconds, step
        )


STAGES: dict[str, Callable[[Record, Sizes, float], None]] = {
    'agreement': agreement,
    'steps': steps,
    'speed': speed,
    'training': training,
}
