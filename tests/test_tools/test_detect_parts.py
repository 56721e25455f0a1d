"""Long detections: stopped, continued, shared by processes; and what is left of them."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import find_free_port
from mmengine import fileio
from pycocotools.coco import COCO

from mmdet_dino_r1.apis import DINOR1Inferencer, detection_run
from mmdet_dino_r1.apis.detection_parts import PartFolder
from mmdet_dino_r1.tools import join_detections
from mmdet_dino_r1.tools.detect import main
from mmdet_dino_r1.utils.progress import lines_of_steps

NAMES = [f'{index}.png' for index in range(6)] + ['sub/6.png']


@pytest.fixture
def command(tmp_path, tiny_files):
    """A detection in seven images, in four parts, into a folder of that name."""
    for index, name in enumerate(NAMES):
        path = tmp_path / 'in' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        width = 64 if index % 3 else 48  # two shapes, so that batches are no runs of images
        shape = (64, width, 3)
        cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 256, shape, np.uint8))
    reference = f'--ref {tmp_path}/in/1.png --box 4,4,30,30:cat --box 9,9,50,60:dog'
    options = f'--input {tmp_path}/in --recursive --part-size 2 --batch-size 2 --score-thr 0'
    rest = f'--no-pictures {reference} {options} --device cpu'.split()
    return lambda out, *more: [*tiny_files, *rest, '--out', str(tmp_path / out), *more]


def content(folder: Path) -> dict[str, bytes]:
    """What the files of a run hold; nothing else is there."""
    paths = [path for path in folder.rglob('*') if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def after_first_part(monkeypatch, action):
    """Do something once the first part is written."""
    write = PartFolder.write

    def then(self, part, *args):
        write(self, part, *args)
        monkeypatch.setattr(PartFolder, 'write', write)
        action()

    monkeypatch.setattr(PartFolder, 'write', then)


@pytest.mark.ddp
def test_killed_and_continued_by_two_processes(tmp_path, command, in_two_processes):
    assert main(command('whole')) == 0
    whole = content(tmp_path / 'whole')
    parts = [f'parts/part_{part:06d}.jsonl' for part in range(4)]
    assert sorted(whole) == [*parts, 'predictions.json', 'run.json']

    if (child := os.fork()) == 0:
        write = PartFolder.write

        def die_half_way(self, part, images, best):
            if part == 1:
                Path(f'{self.path(1)}.half.tmp').write_text('{"id": 3, "ima')
                os.kill(os.getpid(), signal.SIGKILL)
            write(self, part, images, best)

        try:
            PartFolder.write = die_half_way
            main(command('killed', '--workers', '1'))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    left = [parts[0], f'{parts[1]}.half.tmp', 'run.json']
    assert sorted(content(tmp_path / 'killed')) == left
    first = (tmp_path / 'killed' / parts[0]).stat().st_mtime_ns

    in_two_processes('detect', *command('killed'))
    assert content(tmp_path / 'killed') == whole
    assert (tmp_path / 'killed' / parts[0]).stat().st_mtime_ns == first  # not done again


def test_what_a_part_and_the_result_hold(tmp_path, command):
    assert main(command('out', '--top-k', '1')) == 0
    rows = [json.loads(row) for row in (tmp_path / 'out/parts/part_000003.jsonl').open()]
    (image, last) = rows
    assert last == dict(part=3, images=1, best_scores={})
    assert {k: image[k] for k in ('id', 'image', 'height', 'width')} == dict(
        id=7, image='sub/6.png', height=64, width=48
    )
    assert sorted(image['class_names']) == ['cat', 'dog']
    coco = COCO(tmp_path / 'out/predictions.json')
    assert [each['file_name'] for each in coco.dataset['images']] == NAMES
    assert [each['id'] for each in coco.dataset['annotations']] == list(range(1, 15))
    for name, box, score in zip(
        image['class_names'], image['bboxes'], image['scores'], strict=True
    ):
        (found,) = coco.loadAnns(coco.getAnnIds([7], catIds=coco.getCatIds([name])))
        x, y, width, height = found['bbox']
        assert [x, y, x + width, y + height] == pytest.approx(box, abs=1e-9)
        assert found['score'] == score


def test_ids_of_a_coco_file_are_those_of_the_result(tmp_path, command):
    images = [dict(id=40, file_name='sub/6.png'), dict(id=5, file_name='2.png')]
    given = dict(images=images, annotations=[], categories=[dict(id=9, name='dog')])
    (tmp_path / 'ann.json').write_text(json.dumps(given))
    more = ['--input', str(tmp_path / 'ann.json'), '--img', str(tmp_path / 'in')]
    assert main(command('out', *more)) == 0
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [image['id'] for image in found['images']] == [40, 5]
    assert found['categories'] == [dict(id=10, name='cat'), dict(id=9, name='dog')]
    dogs = [each for each in found['annotations'] if each['category_id'] == 9]
    loaded = COCO(tmp_path / 'ann.json').loadRes(dogs)
    assert {each['image_id'] for each in loaded.dataset['annotations']} == {40, 5}


def test_tar_files_and_videos_are_images_too(tmp_path, command):
    with tarfile.open(tmp_path / 'shard.tar', 'w') as tar:
        tar.add(tmp_path / 'in/0.png', 'a/0.png')
    clip = cv2.VideoWriter(
        str(tmp_path / 'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 64)
    )
    for _ in range(3):
        clip.write(cv2.imread(str(tmp_path / 'in/1.png')))
    clip.release()
    fileio.get(f'video://{tmp_path}/clip.avi#0')  # readers inherit what is open
    inputs = [str(tmp_path / name) for name in ('shard.tar', 'clip.avi', 'in/0.png')]
    command = [each for each in command('out', '--stride', '2') if each != '--no-pictures']
    assert main([*command, '--input', *inputs]) == 0
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [(image['file_name'], image.get('time')) for image in found['images']] == [
        ('shard.tar/a/0.png', None),
        ('clip.avi/000000.jpg', 0.0),
        ('clip.avi/000002.jpg', 0.2),
        ('in/0.png', None),
    ]
    same = [[a['bbox'] for a in found['annotations'] if a['image_id'] == i] for i in (1, 4)]
    assert same[0] == same[1] != []
    drawn = sorted(path.name for path in (tmp_path / 'out/vis').iterdir())
    assert drawn == ['0.jpg', '000000.jpg', '000002.jpg', '0_3.jpg']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_and_it_goes_on(tmp_path, command, monkeypatch, capsys, number):
    before = signal.getsignal(number)
    after_first_part(monkeypatch, lambda: os.kill(os.getpid(), number))
    assert main(command('out')) == 3
    said = capsys.readouterr().err
    assert f'ended by {number.name}. 1 of 4 parts are finished and kept; the same' in said
    assert signal.getsignal(number) == before
    assert sorted(content(tmp_path / 'out')) == ['parts/part_000000.jsonl', 'run.json']
    assert main(command('out')) == 0 == main(command('whole'))
    assert content(tmp_path / 'out') == content(tmp_path / 'whole')


@pytest.mark.parametrize('workers', ['0', '2'])
def test_a_lost_folder_is_no_broken_image(tmp_path, command, monkeypatch, capsys, workers):
    def lose():
        (tmp_path / 'in').rename(tmp_path / 'away')
        (tmp_path / 'in').mkdir()  # where it was mounted

    monkeypatch.setattr(detection_run, 'DataLoader', one_ahead(detection_run.DataLoader))
    after_first_part(monkeypatch, lose)
    assert main(command('out', '--workers', workers)) == 3
    assert f'detect: {tmp_path}/in is gone, or empty, while' in capsys.readouterr().err
    (tmp_path / 'in').rmdir()
    (tmp_path / 'away').rename(tmp_path / 'in')
    assert main(command('out')) == 0 == main(command('whole'))
    assert content(tmp_path / 'out') == content(tmp_path / 'whole')


def one_ahead(loader):
    """A loader that reads no more than it must, so that what is lost was not read before."""
    return lambda *args, **kwargs: loader(
        *args, **kwargs | (dict(prefetch_factor=1) if kwargs['num_workers'] else {})
    )


def test_a_disk_without_room(tmp_path, command, monkeypatch):
    """A real refusal: after the first part no file may have more than 100 bytes."""
    fill = lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # noqa: E731
    begin = PartFolder.begin
    for again in (False, True):  # still no room when it goes on
        ours, its = os.pipe()
        if (child := os.fork()) == 0:
            with os.fdopen(its, 'w') as sys.stderr:
                if again:
                    monkeypatch.setattr(PartFolder, 'begin', lambda *a: fill() or begin(*a))
                else:
                    after_first_part(monkeypatch, fill)
                status = main(command('out'))
            os._exit(status)
        os.close(its)
        with os.fdopen(ours) as said:
            last = said.read().splitlines()[-1]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3, last
        assert f"File too large: '{tmp_path}/out/parts/part_000001.jsonl'. 1 of 4 parts are" in last
        assert sorted(content(tmp_path / 'out')) == ['parts/part_000000.jsonl', 'run.json']
    assert main(command('out')) == 0


def test_a_reading_process_that_dies(tmp_path, command, monkeypatch, capsys):
    monkeypatch.setattr(detection_run.ImageFiles, '__getitem__', lambda *_: os._exit(1))
    assert main(command('out', '--workers', '1')) == 3
    assert 'a process that reads images died or hangs: DataLoader worker' in capsys.readouterr().err


def test_shared_memory_without_room(tmp_path, command, monkeypatch):
    """What torch says where a container's /dev/shm is full; images then go by pipes."""

    def refuse(self):
        raise RuntimeError(
            'unable to allocate shared memory(shm) for file: No space left on device'
        )

    assert main(command('whole')) == 0
    monkeypatch.setattr(torch.Tensor, 'share_memory_', refuse)
    assert main(command('out', '--workers', '1')) == 0
    assert content(tmp_path / 'out') == content(tmp_path / 'whole')


def test_too_little_memory(tmp_path, command, monkeypatch, capsys):
    def fill(self, batch):
        raise torch.cuda.OutOfMemoryError('Tried to allocate 8 GiB')

    monkeypatch.setattr(DINOR1Inferencer, 'forward', fill)
    assert main(command('out')) == 3
    assert 'not enough GPU memory, give a lower --batch-size: Tried' in capsys.readouterr().err


def test_results_do_not_become_inputs(tmp_path, command, capsys):
    assert main(command('in/found')) == 2
    assert 'lies in an --input' in capsys.readouterr().err
    assert not (tmp_path / 'in/found').exists()


def test_a_log_is_told_how_far_it_is(capsys):
    show = lines_of_steps(0)
    show(3, 7)
    assert capsys.readouterr().out == '3 of 7\n'
    show = lines_of_steps(1000)
    show(4, 7)
    assert capsys.readouterr().out == ''


def test_a_reader_that_hangs_does_not_keep_the_run(tmp_path, command):
    """It reads from a server that never answers, and gets no signal."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(120)
        url = f'http://127.0.0.1:{server.getsockname()[1]}/1.png'
        tool = [sys.executable, '-m', 'mmdet_dino_r1.tools.detect']
        run = subprocess.Popen(
            [*tool, *command('out', '--workers', '1'), '--input', url],
            env=dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[2])),
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = server.accept()
        with connection:
            run.terminate()
            assert run.wait(timeout=60) == 3
    assert 'ended by SIGTERM. 0 of 1 parts' in run.stderr.read()


def test_unreadable_images_are_listed_and_done_again_when_asked(tmp_path, command, capsys):
    good = (tmp_path / 'in/3.png').read_bytes()
    (tmp_path / 'in/3.png').write_bytes(b'no image')
    assert main(command('out')) == 1
    assert 'detect: left out: ' in capsys.readouterr().err
    name, message = (tmp_path / 'out/unreadable.txt').read_text().strip().split('\t')
    assert name == '3.png' and '3.png cannot be read as an image' in message
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [image['id'] for image in found['images']] == [1, 2, 3, 5, 6, 7]

    (tmp_path / 'in/3.png').write_bytes(good)
    assert main(command('out')) == 1  # what is finished is not looked at again
    assert main(command('out', '--retry-unreadable')) == 0 == main(command('whole'))
    assert content(tmp_path / 'out') == content(tmp_path / 'whole')


def test_another_run_is_not_mixed_in(tmp_path, command, capsys):
    assert main(command('out')) == 0
    before = content(tmp_path / 'out')
    assert main(command('out', '--score-thr', '0.5', '--part-size', '3')) == 2
    said = capsys.readouterr().err
    assert 'has the results of another run: ' in said and 'score_thr 0.0, now 0.5' in said
    assert 'part_size 2, now 3' in said and '--overwrite' in said
    (tmp_path / 'in/7.png').write_bytes((tmp_path / 'in/1.png').read_bytes())
    assert main(command('out')) == 2
    assert 'images 7, now 8; image_list' in capsys.readouterr().err
    assert content(tmp_path / 'out') == before
    assert main(command('out', '--overwrite')) == 0
    assert len(json.loads((tmp_path / 'out/predictions.json').read_text())['images']) == 8


def test_one_of_two_processes_does_it_all_where_the_other_is_lost(
    tmp_path, command, monkeypatch, capsys
):
    written: list[int] = []
    write = PartFolder.write

    def write_and_tell(self, part, *rest):
        write(self, part, *rest)
        written.append(part)

    monkeypatch.setattr(PartFolder, 'write', write_and_tell)
    monkeypatch.setattr('mmdet_dino_r1.tools.detect.get_dist_info', lambda: (0, 2))
    assert main(command('out')) == 0
    assert written == [0, 2, 3, 1]  # its own, then the other's, last ones first


def test_what_is_finished_can_be_joined(tmp_path, command, monkeypatch, capsys):
    after_first_part(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(command('out')) == 3
    out = str(tmp_path / 'out')
    assert join_detections.main([out]) == 2
    assert '3 of 4 parts are missing' in capsys.readouterr().err
    assert join_detections.main([out, '--partial']) == 0
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [image['file_name'] for image in found['images']] == NAMES[:2]
    part = tmp_path / 'out/parts/part_000000.jsonl'
    rows = part.read_text().splitlines(keepends=True)
    for damaged in ('{"id": 1', ''.join(rows[:-1]), ''.join(rows[1:])):  # cut off, lines lost
        part.write_text(damaged)
        assert join_detections.main([out, '--partial']) == 2
        assert 'part_000000.jsonl is damaged: delete it' in capsys.readouterr().err
    assert join_detections.main([str(tmp_path / 'in')]) == 2
    assert 'is no folder that detect wrote' in capsys.readouterr().err


@pytest.mark.ddp
def test_processes_of_slurm(tmp_path, command):
    """As srun starts them; without one, the remedy."""
    port = str(find_free_port())
    tool = [sys.executable, '-m', 'mmdet_dino_r1.tools.detect']
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[2]), OMP_NUM_THREADS='1')
    slurm = dict(SLURM_NTASKS='2', SLURM_NODELIST='here', MASTER_PORT=port)
    ranks = [
        subprocess.Popen(
            [*tool, *command('out', '--launcher', 'slurm')],
            env=env | slurm | dict(SLURM_PROCID=rank, SLURM_LOCALID=rank),
        )
        for rank in '01'
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    assert main(command('whole')) == 0
    assert content(tmp_path / 'out') == content(tmp_path / 'whole')
    lost = subprocess.run(
        [*tool, *command('out', '--launcher', 'slurm')], env=env, capture_output=True, text=True
    )
    assert lost.returncode == 2 and '--launcher slurm needs srun' in lost.stderr
