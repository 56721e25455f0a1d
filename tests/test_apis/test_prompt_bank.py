"""build_prompt_bank from config, checkpoint and annotated images."""

import json
from copy import deepcopy

import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmengine.config import Config
from mmengine.runner import Runner
from support_lists import write_support_list

import mmdet_dino_r1
from mmdet_dino_r1 import build_prompt_bank, load_prompt_bank
from mmdet_dino_r1.apis.weights import load_weights
from mmdet_dino_r1.engine.bank_builder import encode_prompt_bank


@pytest.fixture
def config(tiny_shapes):
    """The small model made tiny, on the tiny set."""
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    cfg.model = tiny_model_cfg()
    cfg.train_dataloader.dataset.data_root = f'{tiny_shapes}/'
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step.scale = (64, 64)
    return cfg


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'tiny.pth'
    torch.save(dict(state_dict=build_tiny().state_dict()), path)
    return path


def build(config, checkpoint, *args, **kwargs):
    return build_prompt_bank(config, checkpoint, *args, device='cpu', **kwargs)


def test_training_set_is_the_default_and_the_file_equals_the_result(config, checkpoint, tmp_path):
    out = tmp_path / 'made' / 'bank.safetensors'
    bank = build(config, checkpoint, out, shots=2, seed=3)
    loaded = load_prompt_bank(out)
    assert torch.equal(loaded.embeddings, bank.embeddings)
    assert loaded.provenance == bank.provenance
    assert torch.equal(loaded.exemplars.embeddings, bank.exemplars.embeddings)
    known = {
        key: bank.provenance[key] for key in ('shots', 'seed', 'fewest', 'model', 'checkpoint')
    }
    assert known == dict(
        shots=2, seed=3, fewest=2, model='dino_r1_r18_shapes', checkpoint='tiny.pth'
    )
    assert bank.provenance['package_version'] == mmdet_dino_r1.__version__
    assert bank.provenance['num_images'] < bank.provenance['images_in_file'] == 12


def test_means_are_those_of_the_kept_exemplars(config, checkpoint):
    bank = build(config, checkpoint, shots=3)
    for row, name in enumerate(bank.class_names):
        mine = bank.exemplars.labels == row
        assert mine.sum() == bank.counts[name] == 3
        mean = bank.exemplars.embeddings[mine].double().mean(dim=0)
        torch.testing.assert_close(bank.embeddings[row].double(), mean, atol=1e-6, rtol=0)
    assert build(config, checkpoint, shots=3, keep_exemplars=False).exemplars.embeddings is None


def test_record_says_which_boxes_of_which_images(config, checkpoint, tiny_shapes):
    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    images = {image['id']: image['file_name'] for image in coco['images']}
    names = {cat['id']: cat['name'] for cat in coco['categories']}
    known = {
        (ann['image_id'], names[ann['category_id']], *map(float, ann['bbox']))
        for ann in coco['annotations']
    }
    bank = build(config, checkpoint, shots=2)
    record = bank.exemplars
    assert [names[id_] for id_ in bank.class_ids] == list(bank.class_names)
    for label, (x1, y1, x2, y2), image_id, file_name in zip(
        record.labels.tolist(),
        record.boxes.tolist(),
        record.image_ids,
        record.file_names,
        strict=True,
    ):
        assert images[image_id] == file_name
        assert (image_id, bank.class_names[label], x1, y1, x2 - x1, y2 - y1) in known


def test_batch_size_changes_nothing_but_rounding(config, checkpoint):
    one, five = (build(config, checkpoint, batch_size=size) for size in (1, 5))
    assert one.exemplars.image_ids == five.exemplars.image_ids
    torch.testing.assert_close(one.embeddings, five.embeddings, atol=1e-5, rtol=1e-5)


def test_named_split_and_classes(config, checkpoint, tiny_shapes):
    ann = tiny_shapes / 'annotations/prompts_novel.json'
    every = build(config, checkpoint, ann=ann, img=tiny_shapes)
    assert len(every) == 2
    second = every.class_names[1]
    one = build(config, checkpoint, ann=ann, img=tiny_shapes, classes=[second])
    assert one.class_names == (second,)
    torch.testing.assert_close(one.embeddings[0], every.embeddings[1], atol=1e-5, rtol=1e-5)


def test_a_list_of_exemplars(config, checkpoint, tiny_shapes, tmp_path):
    path = tmp_path / 'list.json'
    lines = write_support_list(tiny_shapes / 'annotations/train.json', path, 2)
    boxes = sorted(one['bbox'] for line in lines for one in line['detection']['instances'])
    banks = [build(config, checkpoint, support=path, **of) for of in ({}, dict(img=tiny_shapes))]
    for bank in banks:  # images where the config has them, and elsewhere
        assert sorted(bank.exemplars.boxes.tolist()) == boxes
        assert bank.provenance['ann_file'] == str(path)
    assert torch.equal(banks[0].embeddings, banks[1].embeddings)
    for more in (dict(shots=2), dict(seed=0), dict(ann='a.json')):
        with pytest.raises(ValueError, match='leave out ann=, shots= and seed='):
            build(config, checkpoint, support=path, **more)
    path.write_text(path.read_text() + '{')
    with pytest.raises(ValueError, match=f'list.json, line {len(lines) + 1}: no JSON'):
        build(config, checkpoint, support=path)
    with pytest.raises(ValueError, match='cannot be told apart: name a file'):
        build(config, checkpoint, support=tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist: .*gone.json'):
        build(config, checkpoint, support=tmp_path / 'gone.json')


def test_mistakes_are_said_before_the_model_is_built(config, checkpoint, tiny_shapes, tmp_path):
    with pytest.raises(FileNotFoundError, match='ships no config'):
        build('no_such_config.py', checkpoint)
    with pytest.raises(FileNotFoundError, match='annotation file of the exemplars'):
        build(config, checkpoint, ann=tmp_path / 'none.json')
    with pytest.raises(FileNotFoundError, match='images with exemplars are missing'):
        build(config, checkpoint, ann=tiny_shapes / 'annotations/train.json', img=tmp_path)
    with pytest.raises(ValueError, match='give one of these as well'):
        build(config, checkpoint, img=tmp_path)
    with pytest.raises(FileNotFoundError, match='There is no checkpoint'):
        build(config, tmp_path / 'none.pth')


class Hostile:
    """Would run when unpickled."""

    def __reduce__(self):
        return (print, ('code from a checkpoint ran',))


def test_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    path = tmp_path / 'hostile.pth'
    torch.save(dict(state_dict={}, meta=Hostile()), path)
    with pytest.raises(ValueError, match='cannot be loaded safely|loaded safely'):
        load_weights(build_tiny(), path)
    assert 'code from a checkpoint ran' not in capsys.readouterr().out


def test_truncated_checkpoint_is_refused_in_one_line(checkpoint):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='not a checkpoint that can be loaded') as error:
        load_weights(build_tiny(), checkpoint)
    assert '\n' not in str(error.value)


def test_weights_of_another_model_are_refused_and_most_of_one_are_enough(tmp_path):
    model, path = build_tiny(), tmp_path / 'other.pth'
    state = model.state_dict()
    torch.save(dict(state_dict={f'x.{name}': value for name, value in state.items()}), path)
    with pytest.raises(ValueError, match=rf'holds 0 of the {len(state)} tensors .* another config'):
        load_weights(model, path)
    # Grounding DINO's, say, without the prompt encoder; saved under DistributedDataParallel
    most = {f'module.{n}': v + 1 for n, v in state.items() if not n.startswith('prompt_encoder')}
    torch.save(dict(state_dict=most), path)
    before = state['level_embed'].clone()
    load_weights(model, path)
    assert torch.equal(model.state_dict()['level_embed'], before + 1)


def by_hook(cfg, checkpoint, monkeypatch):
    """The bank that the config's own hook gives the model before a test."""
    banks = []
    monkeypatch.setattr(
        'mmdet_dino_r1.engine.hooks.prompt_bank_hook.encode_prompt_bank',
        lambda *args, **options: banks.append(encode_prompt_bank(*args, **options)) or banks[-1],
    )
    runner = Runner.from_cfg(cfg)
    load_weights(runner.model, checkpoint)
    runner.call_hook('before_test_epoch')
    return banks[0]


def chosen(bank):
    return [
        (bank.class_names[label], image_id, box)
        for label, box, image_id in zip(
            bank.exemplars.labels.tolist(),
            bank.exemplars.boxes.tolist(),
            bank.exemplars.image_ids,
            strict=True,
        )
    ]


def test_without_arguments_the_exemplars_are_those_of_the_configs_hook(
    config, checkpoint, tiny_shapes, tmp_path, monkeypatch
):
    """Shots, seed, and categories matched by id: the prompts' file has names of its own."""
    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    names = [category['name'] for category in coco['categories']]
    for category in coco['categories']:
        category['name'] += ' by another name'
    (tmp_path / 'renamed.json').write_text(json.dumps(coco))
    config.default_hooks.prompt_bank.bank = dict(
        shots=3,
        seed=5,
        match='id',
        data_root='',
        ann_file=str(tmp_path / 'renamed.json'),
        data_prefix=dict(img=f'{tiny_shapes}/'),
        keep_exemplars=False,
    )
    for loader in (config.val_dataloader, config.test_dataloader):
        loader.dataset.data_root = f'{tiny_shapes}/'
        loader.num_workers, loader.persistent_workers = 0, False
    for evaluator in (config.val_evaluator, config.test_evaluator):
        evaluator.ann_file = f'{tiny_shapes}/annotations/val.json'
    config.work_dir = str(tmp_path)
    config.experiment_name = config.visualizer.name = tmp_path.name
    hooks = by_hook(deepcopy(config), checkpoint, monkeypatch)
    mine = build(deepcopy(config), checkpoint)
    assert hooks.class_names == mine.class_names == tuple(names)
    assert chosen(hooks) == chosen(mine) and len(chosen(mine)) == 3 * len(names)
    assert torch.equal(hooks.embeddings, mine.embeddings)
    differing = {
        key for key, value in mine.provenance.items() if hooks.provenance.get(key) != value
    }
    assert differing == {'checkpoint'}
    assert mine.provenance['seed'] == 5 and mine.exemplars.embeddings is None
    # what is given wins: a class of the test set, and the choice from it
    one = build(deepcopy(config), checkpoint, classes=[names[1]], shots=1, keep_exemplars=True)
    assert one.counts == {names[1]: 1} and one.exemplars.embeddings is not None
    with pytest.raises(ValueError, match=rf'has no classes .{names[1]}x. \(near: {names[1]}'):
        build(config, checkpoint, classes=[f'{names[1]}x'])
    # a file that is given is matched by name
    split = dict(ann=tmp_path / 'renamed.json', img=tiny_shapes)
    assert build(config, checkpoint, **split).class_names == tuple(
        f'{name} by another name' for name in names
    )


def test_ids_need_a_single_test_set(config, checkpoint):
    config.default_hooks.prompt_bank.bank.match = 'id'
    member = dict(
        config.test_dataloader.dataset, data_root=config.train_dataloader.dataset.data_root
    )
    config.test_dataloader.dataset = dict(
        type='DatasetGroup', common=member, datasets=dict(one={}, two={})
    )
    with pytest.raises(ValueError, match='there are several test sets'):
        build(config, checkpoint)
