"""The shipped ODinW config, restricted to two sets arranged as ODinW lays them out."""

import json
from pathlib import Path

import pytest
from mmengine.fileio import load
from support_lists import write_support_list

from mmdet_dino_r1.structures import load_prompt_bank

from .drawn import draw_set
from .runs import REAL_DATA, assert_same_detections, datasets_in, record_of, run_here, run_script

ONLY = ['BCCD', 'Raccoons']
FOLDERS = dict(BCCD='BCCD/BCCD.v3-raw.coco', Raccoons='Raccoon/Raccoon.v2-raw.coco')
SOURCES = dict(BCCD='bccd', Raccoons='raccoon')


def real(name: str, split: str) -> tuple[dict, Path]:
    """The first images of a real set, and where they lie."""
    folder = REAL_DATA / SOURCES[name]
    coco = json.loads((folder / 'annotations' / f'{split}.json').read_text())
    coco['images'] = coco['images'][: 8 if split == 'val' else 30]
    return coco, folder / 'images'


def drawn(name: str, split: str, folder: Path) -> tuple[dict, Path]:
    """Five images that show as many classes as the real set has."""
    names = ['Platelets', 'RBC', 'WBC'] if name == 'BCCD' else ['raccoon']
    categories = dict(enumerate(names, 1))
    return draw_set(folder, [list(categories)] * 5, categories, len(name) + len(split)), folder


@pytest.fixture(params=['drawn', 'real'])
def odinw(request, tmp_path) -> Path:
    """``data/odinw/`` with two sets; one renames its classes in the test split."""
    if request.param == 'real' and not REAL_DATA.is_dir():
        pytest.skip('no folder of real photographs (DINO_R1_REAL_DATA)')
    for name, folder in FOLDERS.items():
        for split in ('train', 'val'):
            if request.param == 'real':
                coco, images = real(name, split)
            else:
                coco, images = drawn(name, split, tmp_path / 'noise' / name / split)
            kept = {image['id'] for image in coco['images']}
            coco['annotations'] = [a for a in coco['annotations'] if a['image_id'] in kept]
            if name == 'BCCD' and split == 'val':
                coco['categories'][1]['name'] = 'red blood cell'
            target = tmp_path / 'odinw' / folder / ('valid' if split == 'val' else split)
            target.mkdir(parents=True)
            (target / 'annotations_without_background.json').write_text(json.dumps(coco))
            for image in coco['images']:
                (target / image['file_name']).symlink_to(images / image['file_name'])
    return tmp_path / 'odinw'


@pytest.fixture
def cfg_for(shipped, odinw):
    def build(run='run', batch_size=1, only=ONLY):
        cfg = shipped('dino_r1_swin_t_zeroshot_odinw35', run, batch_size)
        for dataset in datasets_in(cfg):
            dataset.data_root = dataset.data_root.replace('data/odinw', str(odinw))
        cfg.test_dataloader.dataset.only = only
        cfg.default_hooks.prompt_bank.bank.batch_size = 4
        cfg.test_evaluator.metrics.outfile_prefix = str(odinw.parent / run / 'results')
        return cfg

    return build


def test_two_sets_each_with_its_own_prompts_and_their_mean(cfg_for, odinw):
    metrics = run_here(cfg_for())
    record = record_of(str(odinw.parent / 'run'))
    values = [metrics[f'{name}/coco/bbox_mAP'] for name in ONLY]
    assert metrics['mean/coco/bbox_mAP'] == pytest.approx(sum(values) / 2)
    described = record['protocol']
    assert described['name'] == 'visual_g' and described['source'] == 'differs'
    for name in ONLY:
        source = odinw / FOLDERS[name] / 'train' / 'annotations_without_background.json'
        assert described['datasets'][name]['source'] == str(source)


def test_each_set_is_tested_as_it_would_be_alone(cfg_for, odinw):
    together = run_here(cfg_for('together', batch_size=3))
    for name in ONLY:
        alone = run_here(cfg_for(f'alone_{name}', only=[name]))
        key = f'{name}/coco/bbox_mAP'
        assert together[key] == alone[key]
        files = [
            odinw.parent / run / f'results.{name}.bbox.json'
            for run in ('together', f'alone_{name}')
        ]
        assert_same_detections(*files)


def test_a_list_of_exemplars_for_each_set(cfg_for, odinw):
    """Named in the config; ids are matched, since a class is renamed; one id is not listed."""
    lists = odinw.parent / 'lists'
    files = dict(BCCD='BCCD_train_odvg_16.json', Raccoons='Raccoon_train_odvg_16.json')
    for name, file in files.items():
        train = odinw / FOLDERS[name] / 'train/annotations_without_background.json'
        lines = write_support_list(train, lists / file, 3)
        train.unlink()  # the list stands in for it
        if name == 'BCCD':
            kept = [line for line in lines if line['detection']['instances'][0]['label'] != 1]
            (lists / file).write_text('\n'.join(map(json.dumps, kept)))
    cfg = cfg_for('lists')
    cfg.default_hooks.prompt_bank.bank.support = str(lists)
    run_here(cfg)
    found = record_of(cfg.work_dir)['protocol']['datasets']
    assert {name: found[name]['source'] for name in ONLY} == {
        name: str(lists / file) for name, file in files.items()
    }
    assert found['BCCD']['without_prompt'] == ['Platelets']
    assert found['Raccoons']['without_prompt'] == []
    banks = [load_prompt_bank(path) for path in Path(cfg.work_dir).glob('prompt_banks/*')]
    assert {bank.class_names for bank in banks} == {('red blood cell', 'WBC'), ('raccoon',)}

    cfg = cfg_for('refused')
    cfg.default_hooks.prompt_bank.bank.update(support=str(lists), skip_missing=False)
    with pytest.raises(
        ValueError, match=r"no categories of id 1 \('Platelets'\).*skip_missing=True"
    ):
        run_here(cfg)


@pytest.mark.slow
def test_two_processes_and_another_batch_size_give_the_same(cfg_for, odinw):
    one = cfg_for('one')
    metrics = run_here(one)
    two = cfg_for('two', batch_size=4)
    record = run_script(two, 2)
    assert record['metrics'] == pytest.approx(metrics, abs=1e-9)
    for file in sorted((odinw.parent / 'one').glob('results*.json')):
        assert_same_detections(file, odinw.parent / 'two' / file.name)


@pytest.mark.slow
def test_dump_and_pictures_with_several_sets(cfg_for, odinw):
    cfg = cfg_for('shown')
    out = odinw.parent / 'out.pkl'
    run_script(cfg, 1, '--out', str(out), '--show-dir', 'pictures')
    dumped = load(out)
    sizes = {name: sum(d['dataset_name'] == name for d in dumped) for name in ONLY}
    assert min(sizes.values()) >= 5 and sum(sizes.values()) == len(dumped)
    for name, size in sizes.items():
        pictures = list(Path(cfg.work_dir).glob(f'**/pictures/{name}/*'))
        assert len(pictures) == size


def test_missing_sets_are_skipped_only_when_asked(cfg_for):
    cfg = cfg_for('missing', only=[*ONLY, 'Aquarium'])
    with pytest.raises(FileNotFoundError, match='Aquarium'):
        run_here(cfg)
    cfg = cfg_for('skipped', only=[*ONLY, 'Aquarium'])
    cfg.test_dataloader.dataset.skip_missing = True
    assert 'mean/coco/bbox_mAP' in run_here(cfg)
