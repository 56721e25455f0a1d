"""Trainings that two processes run one after another, each with a Runner of its own.

They start with ``ranks.py``; FOLDER/shapes is the data.
"""

import json
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from test_engine.test_runner import tiny_cfg

from mmdet_dino_r1.structures import TextEmbeddings, save_text_embeddings
from mmdet_dino_r1.utils.compat import torch_version
from test_distributed import recorder  # noqa: F401  registers what the configs name


def write_split(shapes: Path, name: str, order: list[int], boxes=lambda position: 2) -> Path:
    """A training split of some of the images, in a given order; kept if it is there.

    Args:
        shapes: the data set.
        name: of the split.
        order: which images, by their position in the data set's own split.
        boxes: how many boxes the image at a position keeps at most.
    """
    path = shapes / 'annotations' / f'{name}.json'
    if path.exists():  # both ranks ask for it
        return path
    coco = json.loads((shapes / 'annotations' / 'train.json').read_text())
    images, annotations = [], []
    for number, position in enumerate(order):  # numbered anew: an image may come twice
        image = coco['images'][position]
        images.append(dict(image, id=number))
        own = [a for a in coco['annotations'] if a['image_id'] == image['id']]
        for annotation in own[: boxes(position)]:
            annotations.append(dict(annotation, id=len(annotations) + 1, image_id=number))
    path.write_text(json.dumps(dict(coco, images=images, annotations=annotations)))
    return path


def plain_cfg(shapes: Path, work_dir: Path, split: Path, batch_size: int, **options) -> Config:
    """A tiny DINO-R1 run in which nothing is random but which boxes become exemplars.

    Two images of the split a rank and step; its steps and gradients are noted by ``recorder.py``.
    """
    cfg = tiny_cfg(shapes, work_dir, **options)
    cfg.custom_hooks = [dict(type='Recorder')]
    cfg.optim_wrapper = dict(
        type='RecordingOptimWrapper', optimizer=dict(type='SGD', lr=1e-3), clip_grad=None
    )
    loader = cfg.train_dataloader
    loader.batch_size = batch_size
    loader.sampler.shuffle = False
    loader.dataset.ann_file = str(split)
    loader.dataset.pipeline = [s for s in loader.dataset.pipeline if s['type'] != 'RandomFlip']
    cfg.merge_from_dict(
        dict(
            model=dict(
                gather_prompts=True,
                bbox_head=dict(sync_cls_avg_factor=True),
                encoder=dict(fusion_layer_cfg=dict(dropout=0.0, drop_path=0.0)),
                # the queries are still there, but always the same
                dn_cfg=dict(label_noise_scale=1e-9, box_noise_scale=1e-9),
            )
        )
    )
    if cfg.model.bbox_head.get('loss_grqo'):
        # Large enough to be seen in every gradient. But where the reference is nearly the policy,
        # the KL's slope is the rounding of both times its weight: at 10 that alone is 3e-5 of a
        # gradient on some processors.
        cfg.model.bbox_head.loss_grqo.update(reward_weight=1.0, kl_weight=1.0)
    return cfg


def without_validation(cfg: Config) -> Config:
    """Trains only."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


# --- what both processes run ------------------------------------------------------------


def uneven(folder: Path, num_ranks: int = 2) -> Config:
    """By iterations; every second image, those of rank 1, is without boxes; EMA; contrasts."""
    shapes = folder / 'shapes'
    split = write_split(shapes, 'uneven', list(range(8)), lambda i: 3 * (i % 2 == 0))
    cfg = plain_cfg(shapes, folder / 'uneven', split, 4 // num_ranks, by_epoch=False)
    cfg.train_cfg.update(max_iters=4, val_interval=4)
    cfg.default_hooks.reference_model.update(interval=2, by_epoch=False, start_iter=1)
    names = json.loads(split.read_text())['categories']
    texts = TextEmbeddings(tuple(c['name'] for c in names), torch.eye(len(names)))
    path = folder / 'texts.safetensors'
    if not path.exists():
        save_text_embeddings(texts, path)
    cfg.model.text_alignment = dict(
        type='PromptTextContrastiveLoss', embeddings=str(path), text_dim=len(names)
    )
    cfg.model.prompt_contrast = dict(type='PromptContrastiveLoss')
    cfg.model.gather_prompts = False
    cfg.custom_hooks += [dict(type='TextAlignmentHook'), dict(type='EMAHook', momentum=0.5)]
    return cfg


def kept(folder: Path) -> Config:
    """All activations are kept: what the next case is compared with."""
    shapes = folder / 'shapes'
    split = write_split(shapes, 'kept', list(range(4)))
    cfg = without_validation(plain_cfg(shapes, folder / 'kept', split, 1))
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    return cfg


def recomputed(folder: Path) -> Config:
    """Activations are forgotten and recomputed, in encoder and backbone."""
    cfg = kept(folder)
    cfg.work_dir = str(folder / 'recomputed')
    cfg.experiment_name = cfg.visualizer.name = 'recomputed'
    cfg.model.encoder.num_cp = 1
    cfg.model.backbone.with_cp = True
    return cfg


def accumulated(folder: Path, num_ranks: int = 2) -> Config:
    """A step every second iteration, of three; GRQO from the second iteration on."""
    shapes = folder / 'shapes'
    split = write_split(shapes, 'accumulated', list(range(6)))
    work_dir = folder / f'accumulated{num_ranks}'
    cfg = without_validation(plain_cfg(shapes, work_dir, split, 2 // num_ranks, by_epoch=False))
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3)
    cfg.default_hooks.reference_model.update(interval=1, by_epoch=False, start_iter=1)
    cfg.optim_wrapper.accumulative_counts = 2
    return cfg


def sharded(folder: Path) -> Config:
    """GRQO without the KL term by FSDP, which needs a device named where there is no GPU."""
    shapes = folder / 'shapes'
    split = write_split(shapes, 'sharded', list(range(4)))
    cfg = plain_cfg(shapes, folder / 'sharded', split, 2)
    cfg.model.bbox_head.loss_grqo.kl_weight = 0
    cfg.pop('model_wrapper_cfg')
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.runner_type = 'FlexibleRunner'
    cfg.strategy = dict(
        type='FSDPStrategy',
        model_wrapper=dict(type='MMFullyShardedDataParallel', device_id='cpu'),
    )
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    return cfg


def sharded_reference(folder: Path) -> Config:
    """The same with the KL term."""
    cfg = without_validation(sharded(folder))
    cfg.work_dir = str(folder / 'sharded_reference')
    cfg.experiment_name = cfg.visualizer.name = 'sharded_reference'
    cfg.model.bbox_head.loss_grqo.kl_weight = 0.04
    return cfg


ROOT = Path(__file__).resolve().parents[2]
CASES = (uneven, kept, recomputed, accumulated)
FSDP_WITHOUT_GPU = torch_version() >= (2, 2)  # 2.1 asks for CUDA's streams
if FSDP_WITHOUT_GPU:
    CASES += (sharded, sharded_reference)


def train(cfg: Config) -> Runner:
    """A training as ``mim train`` would run it."""
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.train()
    return runner


def prepare(folder: Path) -> None:
    """Write all data, so that no rank reads what the other writes."""
    for case in CASES:
        case(folder)


def main(rank: int, port: int, folder: Path) -> None:
    """All cases; what one refuses is kept as text beside the others' notes."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.distributed.init_process_group('gloo')
    for case in CASES:
        torch.distributed.barrier()
        cfg = case(folder)
        cfg.launcher = 'pytorch'
        torch.manual_seed(0)
        try:
            train(cfg)
        except ValueError as error:
            Path(cfg.work_dir, f'refused{rank}.txt').write_text(str(error))
    torch.distributed.destroy_process_group()
