"""The prompt-text contrast within the detector, its hook, and what a checkpoint gives it."""

import logging
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIGS, TWO_IMAGES, build_tiny, make_batch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_checkpoint
from model_variants import VARIANTS

from mmdet_dino_r1.engine.hooks.text_alignment_hook import TextAlignmentHook
from mmdet_dino_r1.models.losses import prompt_text_contrast
from mmdet_dino_r1.structures import (
    BatchBoxes,
    ExemplarChoice,
    TextEmbeddings,
    save_text_embeddings,
)

NAMES = tuple(f'class {i}' for i in range(8))
NO_BOXES = ([], [])


@pytest.fixture
def texts_file(tmp_path):
    generator = torch.Generator().manual_seed(3)
    texts = TextEmbeddings(NAMES, torch.randn(8, 12, generator=generator))
    return str(save_text_embeddings(texts, tmp_path / 'texts.safetensors'))


def build_aligned(texts_file, grqo=None, **variant):
    config = dict(type='PromptTextContrastiveLoss', embeddings=texts_file, text_dim=12)
    return build_tiny(grqo, text_alignment=config, **variant).train()


@pytest.fixture
def aligned(texts_file):
    model = build_aligned(texts_file)
    model.text_alignment.set_classes(NAMES)
    return model


def runner_for(model, **metainfo):
    dataset = SimpleNamespace(metainfo=metainfo)
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(model=model, train_dataloader=loader, cfg=Config())


@pytest.fixture
def warnings():
    lines = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


# --- off and on -------------------------------------------------------------------------


def test_off_there_is_nothing_of_it():
    model = build_tiny().train()
    assert model.text_alignment is None
    assert not [name for name in model.state_dict() if 'text_feat_map' in name or 'align' in name]
    assert not [name for name in model.loss(*make_batch(TWO_IMAGES)) if 'prompt_text' in name]


def test_on_all_other_losses_are_the_same(aligned):
    plain = build_tiny().train()
    new = aligned.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert sorted(new) == ['text_alignment.log_scale', 'text_feat_map.bias', 'text_feat_map.weight']
    batch = make_batch(TWO_IMAGES)
    torch.manual_seed(9)
    without = plain.loss(*batch)
    torch.manual_seed(9)
    losses = aligned.loss(*batch)
    assert list(losses)[: len(without)] == list(without)
    assert all(torch.equal(losses[name], value) for name, value in without.items())
    added = ['loss_prompt_text', 'prompt_text_accuracy', 'prompt_text_scale']
    assert sorted(losses.keys() - without.keys()) == added


def test_off_no_second_encoding():
    model = build_tiny().train()
    calls = []
    encode = model.encode_exemplars
    model.encode_exemplars = lambda *args: calls.append(len(args[1])) or encode(*args)
    model.loss(*make_batch(TWO_IMAGES))
    assert calls == [3]


def test_loss_is_of_all_boxes_against_their_names(aligned, texts_file):
    """Classes 2 (two boxes), 5 and 7, against rows 2, 5 and 7 through the projection."""
    images, samples = make_batch(TWO_IMAGES)
    value = aligned.loss(images, samples)['loss_prompt_text']
    inputs, _ = aligned.pre_transformer(aligned.extract_feat(images), samples)
    boxes = torch.tensor([[14, 17, 20, 26], [45, 35, 30, 30], [18, 48, 16, 24], [24, 24, 32, 32]])
    choice = ExemplarChoice(
        torch.tensor([0, 0, 0, 1]), boxes.float() / 64, torch.tensor([2, 5, 2, 7])
    )
    first, second, third, fourth = aligned.encode_exemplars(inputs, choice)
    prompts = torch.stack([(first + third) / 2, second, fourth])
    texts = aligned.text_feat_map(aligned.text_alignment._texts[[2, 5, 7]])
    expected = 100 * prompt_text_contrast(prompts, texts, 1 / 0.07)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-3)


def test_joint_prompts_of_all_boxes_against_their_names(texts_file):
    """Both boxes of class 2 are one exemplar, read from the memory."""
    model = build_aligned(texts_file, **VARIANTS['late_joint'])
    model.text_alignment.set_classes(NAMES)
    images, samples = make_batch(TWO_IMAGES)
    value = model.loss(images, samples)['loss_prompt_text']
    inputs, _ = model.pre_transformer(model.extract_feat(images), samples)
    choice = BatchBoxes.read(samples, joint=True).chosen()
    assert choice.labels.tolist() == [2, 5, 7] and choice.box_sets.tolist() == [0, 1, 0, 2]
    prompts = model.encode_exemplars(model.encode_image(inputs), choice)
    texts = model.text_feat_map(model.text_alignment._texts[[2, 5, 7]])
    expected = 100 * prompt_text_contrast(prompts, texts, 1 / 0.07)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-3)


def test_projection_is_frozen_and_all_else_learns(aligned):
    before = {name: p.clone() for name, p in aligned.named_parameters()}
    optimiser = torch.optim.AdamW(aligned.parameters(), lr=1e-3, weight_decay=0.1)
    aligned.parse_losses(aligned.loss(*make_batch(TWO_IMAGES)))[0].backward()
    optimiser.step()
    for name, parameter in aligned.named_parameters():
        frozen = name.startswith('text_feat_map')
        assert (parameter.grad is None) == frozen, name
        assert torch.equal(parameter, before[name]) or not frozen, name
    assert not torch.equal(aligned.text_alignment.log_scale, before['text_alignment.log_scale'])


@pytest.mark.parametrize(
    'ground_truth',
    [[NO_BOXES, NO_BOXES], [TWO_IMAGES[1], NO_BOXES], [([[4, 4, 20, 20], [9, 9, 30, 30]], [2, 2])]],
)
def test_no_class_or_one_teaches_nothing_and_stays_connected(aligned, ground_truth):
    """Otherwise DDP waits for the gradient of the scale."""
    losses = aligned.loss(*make_batch(ground_truth))
    assert losses['loss_prompt_text'].item() == 0
    losses['loss_prompt_text'].backward()
    assert aligned.text_alignment.log_scale.grad.item() == 0
    encoder = aligned.prompt_encoder.parameters()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in encoder)


def test_reference_model_and_half_precision(texts_file):
    model = build_aligned(texts_file, dict(kl_weight=0.04))
    model.text_alignment.set_classes(NAMES)
    model.reference_model.refresh(model)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*make_batch(TWO_IMAGES))
    model.parse_losses(losses)[0].backward()
    assert losses['loss_prompt_text'].dtype == torch.float32
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(torch.isfinite(p.grad).all() for p in trained)


# --- checkpoints ------------------------------------------------------------------------


def test_grounding_dino_checkpoint_gives_the_projection(aligned, tmp_path):
    """By mmdet's names; the language model beside it is not taken."""
    torch.manual_seed(5)
    given = {
        'text_feat_map.weight': torch.randn(256, 12),
        'text_feat_map.bias': torch.randn(256),
        'language_model.language_backbone.body.model.embeddings.x': torch.zeros(2),
    }
    path = tmp_path / 'grounding_dino.pth'
    torch.save(dict(state_dict=given, meta={}), path)
    load_checkpoint(aligned, str(path), map_location='cpu')
    assert torch.equal(aligned.text_feat_map.weight, given['text_feat_map.weight'])
    assert torch.equal(aligned.text_feat_map.bias, given['text_feat_map.bias'])
    assert aligned.text_feat_map.is_loaded
    assert not any(p.requires_grad for p in aligned.text_feat_map.parameters())


def test_names_and_shapes_are_mmdets(aligned):
    shapes = {n: tuple(p.shape) for n, p in aligned.state_dict().items() if 'text_feat' in n}
    assert shapes == {'text_feat_map.weight': (256, 12), 'text_feat_map.bias': (256,)}


def test_projection_of_another_width_is_not_taken_for_loaded(aligned, tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'text_feat_map.weight': torch.zeros(256, 768)}), path)
    load_checkpoint(aligned, str(path), map_location='cpu')
    assert not aligned.text_feat_map.is_loaded


def test_config_option_switches_it_off(texts_file):
    cfg = Config(dict(model=dict(text_alignment=dict(embeddings=texts_file))))
    cfg.merge_from_dict({'model.text_alignment': None})
    assert cfg.model.text_alignment is None


# --- hook -------------------------------------------------------------------------------


def test_hook_matches_labels_by_name(texts_file):
    model = build_aligned(texts_file)
    classes = NAMES[::-1]
    TextAlignmentHook().before_train(runner_for(model, classes=classes))
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(8, 12, generator=generator).flip(0)
    assert torch.equal(model.text_alignment._texts, rows)


def test_hook_warns_of_a_random_projection_only(texts_file, warnings):
    model = build_aligned(texts_file)
    TextAlignmentHook().before_train(runner_for(model, classes=NAMES))
    assert len(warnings) == 1 and 'random and stays so' in warnings[0]
    model.load_state_dict(model.state_dict())
    TextAlignmentHook().before_train(runner_for(model, classes=NAMES))
    assert len(warnings) == 1


def test_hook_leaves_other_models_alone(warnings):
    TextAlignmentHook().before_train(runner_for(build_tiny()))
    TextAlignmentHook().before_train(runner_for(torch.nn.Identity()))
    assert warnings == []


def test_hook_fails_before_the_first_step_where_the_file_is_missing(texts_file, tmp_path):
    model = build_aligned(str(tmp_path / 'none.safetensors'))
    with pytest.raises(FileNotFoundError, match='cache_text_embeddings(.|\n)*text_alignment=None'):
        TextAlignmentHook().before_train(runner_for(model, classes=NAMES))


def test_hook_refuses_training_sets_without_one_list_of_classes(texts_file):
    model = build_aligned(texts_file)
    with pytest.raises(ValueError, match='has none.*text_alignment=None'):
        TextAlignmentHook().before_train(runner_for(model))
    runner = runner_for(model)
    a, b, all_, same = (
        SimpleNamespace(metainfo=dict(classes=classes)) for classes in ('a', 'b', NAMES, [*NAMES])
    )
    runner.train_dataloader.dataset.datasets = [a, b]
    with pytest.raises(ValueError, match="labels stand for 'b', those of .* for 'a'"):
        TextAlignmentHook().before_train(runner)
    runner.train_dataloader.dataset.datasets = [all_, same]
    TextAlignmentHook().before_train(runner)


def test_two_steps_through_the_runner(tiny_shapes, tmp_path):
    from mmengine.runner import Runner
    from pycocotools.coco import COCO

    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py')
    coco = COCO(tiny_shapes / cfg.train_dataloader.dataset.ann_file)
    names = tuple(category['name'] for category in coco.dataset['categories'])
    path = save_text_embeddings(TextEmbeddings(names, torch.randn(len(names), 12)), tmp_path / 't')
    model = build_aligned(str(path))
    loader = cfg.train_dataloader
    loader.dataset.data_root, loader.batch_size, loader.num_workers = f'{tiny_shapes}/', 2, 0
    loader.persistent_workers = False
    loader.dataset.pipeline = [
        dict(step, scale=(64, 64)) if step['type'] == 'Resize' else step
        for step in loader.dataset.pipeline
    ]
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=loader,
        optim_wrapper=cfg.optim_wrapper,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
        ),
        custom_hooks=[dict(type='TextAlignmentHook')],
        log_processor=dict(by_epoch=False),
        default_scope='mmdet',
        experiment_name=tmp_path.name,
    )
    projection = model.text_feat_map.weight.clone()
    runner.train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('random and stays so') == 1 and 'loss_prompt_text: ' in log
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    assert torch.equal(state['text_feat_map.weight'], projection)
    assert state['text_alignment.log_scale'] != build_aligned(str(path)).text_alignment.log_scale
    assert not [name for name in state if name.startswith('text_alignment._')]
