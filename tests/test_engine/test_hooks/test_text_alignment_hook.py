"""The embeddings of the class names are made at the start where they are not there."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # of the two processes below
from mmdet_dino_r1.engine import text_embedding
from mmdet_dino_r1.engine.hooks import TextAlignmentHook
from mmdet_dino_r1.models.losses import PromptTextContrastiveLoss
from mmdet_dino_r1.structures import TextEmbeddings, load_text_embeddings, save_text_embeddings
from mmdet_dino_r1.tools import cache_text_embeddings

NAMES = ('cat', 'dog_bed', 'fire hydrant')


def runner_for(path, bert, names=NAMES):
    """What the hook reads of a runner, with an alignment that wants the file at ``path``."""
    alignment = PromptTextContrastiveLoss(str(path), text_dim=16, bert=bert and str(bert))
    projection = SimpleNamespace(is_loaded=True)
    model = SimpleNamespace(text_alignment=alignment, text_feat_map=projection)
    dataset = SimpleNamespace(metainfo=dict(classes=names))
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(model=model, train_dataloader=loader, cfg=Config())


def texts_after_start(*args):
    """(num_classes, 16) as the loss has them."""
    runner = runner_for(*args)
    TextAlignmentHook().before_train(runner)
    return runner.model.text_alignment._texts


@pytest.fixture(scope='module')
def bert_folder(tmp_path_factory):
    from test_engine.test_text_embedding import write_tiny_bert  # not for the two processes

    return write_tiny_bert(tmp_path_factory.mktemp('bert'))


def test_a_training_makes_what_the_tool_makes_once(bert_folder, tiny_shapes, tmp_path):
    """And it draws no random number for that."""
    from test_engine.test_runner import scalars, tiny_cfg

    path, by_tool = tmp_path / 'made' / 'texts.safetensors', tmp_path / 'by_tool'

    def train(name):
        cfg = tiny_cfg(tiny_shapes, tmp_path / name, 'vis_gdino_r18_shapes.py', by_epoch=False)
        cfg.train_cfg.update(max_iters=2, val_interval=9)
        cfg.model.text_alignment = dict(
            type='PromptTextContrastiveLoss',
            embeddings=str(path),
            bert=str(bert_folder),
            text_dim=16,
        )
        cfg.default_hooks.text_alignment = dict(type='TextAlignmentHook')
        cfg.dump(tmp_path / 'config.py')
        runner = Runner.from_cfg(cfg)
        runner.train()
        (log,) = (tmp_path / name).glob('*/*.log')
        drop = ('time', 'data_time', 'memory')
        lines = [{k: v for k, v in x.items() if k not in drop} for x in scalars(tmp_path / name)]
        return log.read_text(), lines

    log, first = train('first')
    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    names = tuple(category['name'] for category in coco['categories'])
    assert f'There is no {path} yet: embedding {len(names)} class names with {bert_folder}' in log
    assert f'Text embeddings kept: {path}' in log
    made, written = load_text_embeddings(path), path.stat().st_mtime_ns
    command = [str(tmp_path / 'config.py'), '--bert', str(bert_folder), '--out', str(by_tool)]
    assert cache_text_embeddings.main(command) == 0
    tools = load_text_embeddings(by_tool)
    assert made.class_names == tools.class_names == names
    assert torch.equal(made.embeddings, tools.embeddings)
    assert made.provenance | dict(source='') == tools.provenance | dict(source='')
    log, second = train('second')
    assert 'Text embeddings' not in log and path.stat().st_mtime_ns == written
    assert second == first and 'loss_prompt_text' in first[0]


def test_a_file_that_lacks_a_class_is_left_alone(bert_folder, tmp_path):
    path = save_text_embeddings(TextEmbeddings(NAMES[:2], torch.ones(2, 16)), tmp_path / 'texts')
    before = path.read_bytes()
    with pytest.raises(ValueError, match="lack 1 of 3 class names: 'fire hydrant'"):
        texts_after_start(path, bert_folder)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_costs_a_warning(bert_folder, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(text_embedding, 'print_log', lambda told, **_: lines.append(told))
    (tmp_path / 'data').touch()
    texts = texts_after_start(tmp_path / 'data' / 'texts', bert_folder)
    assert torch.equal(texts, texts_after_start(tmp_path / 'texts', bert_folder))
    assert 'were not kept' in lines[1]
    assert lines[1].endswith('--cfg-options model.text_alignment.embeddings=FILE')


@pytest.mark.parametrize('bert', [None, 'mine/bert'])
def test_where_it_cannot_be_made_both_remedies_are_told(bert, tmp_path, monkeypatch):
    """Under a script of one's own, which checks nothing before."""
    monkeypatch.setattr(text_embedding.mmdet_bert, 'AutoTokenizer', None)
    with pytest.raises(
        FileNotFoundError, match=r'(?s)There is no .*cache_text_embeddings'
    ) as error:
        texts_after_start(tmp_path / 'texts', bert)
    assert 'cache_text_embeddings CONFIG' in str(error.value)
    assert str(error.value).endswith('model.text_alignment=None')
    assert ('transformers<' in str(error.value)) == (bert is not None)


def start(rank: int, port: int, folder: str) -> None:
    """A start that makes the file, one that reads it, one that fails; each rank's own paths."""
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    bert = Path(folder, 'bert')
    # two machines, each with a data folder of its own
    texts = [texts_after_start(Path(folder, str(rank), 'texts'), bert) for _ in 'ab']
    torch.save(texts, Path(folder, f'{rank}.pt'))
    text_embedding.mmdet_bert.AutoTokenizer = None
    try:
        texts_after_start(Path(folder, 'none'), bert)
    except FileNotFoundError as error:
        Path(folder, f'{rank}.txt').write_text(str(error))
    dist.barrier()
    os._exit(0)


@pytest.mark.ddp
def test_one_of_two_processes_makes_them_for_both(bert_folder, tmp_path):
    from conftest import run_two_ranks  # the file also runs without pytest's path

    shutil.copytree(bert_folder, tmp_path / 'bert')
    run_two_ranks(__file__, tmp_path)
    made = load_text_embeddings(tmp_path / '0' / 'texts').rows_for(NAMES)
    for rank in (0, 1):
        first, second = torch.load(tmp_path / f'{rank}.pt')
        assert torch.equal(first, made) and torch.equal(second, made)
    assert not (tmp_path / '1').exists()
    messages = {(tmp_path / f'{rank}.txt').read_text() for rank in (0, 1)}
    assert len(messages) == 1 and 'transformers<' in messages.pop()


if __name__ == '__main__':
    start(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
