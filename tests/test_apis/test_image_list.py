"""Long lists of images."""

import io
import json
import tarfile

import cv2
import mmcv
import numpy as np
import pytest
from mmengine import fileio

from mmdet_dino_r1.apis.image_list import ImageList, common_folder, read_image_list


def png(value: int) -> bytes:
    return cv2.imencode('.png', np.full((2, 3, 3), value, np.uint8))[1].tobytes()


def pack(path, files: dict[str, bytes], mode='w'):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.fixture
def tree(tmp_path):
    """b.png, a/c.jpg, a/d/e.PNG, and what is to be left out."""
    for name in ('b.png', 'a/c.jpg', 'a/d/e.PNG', 'a/.hidden.png', 'a/notes.txt', 'z/empty.csv'):
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(1))
    return tmp_path / 'photos'


def test_a_tree_with_a_link_that_leads_back(tree, tmp_path):
    (tree / 'a' / 'loop').symlink_to(tree)
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'f.png').write_bytes(png(2))
    (tree / 'linked').symlink_to(tmp_path / 'elsewhere')
    listed = read_image_list([str(tree)], recursive=True)
    assert listed.names == ['b.png', 'a/c.jpg', 'a/d/e.PNG', 'linked/f.png']
    assert listed.paths == [str(tree / name) for name in listed.names]
    assert listed.ids == [1, 2, 3, 4]
    assert read_image_list([str(tree)]).names == ['b.png']


def test_file_names_are_relative_to_the_folder_of_all_inputs(tmp_path):
    for path in ('a/1.jpg', 'a/2.jpg', 'b/c/3.jpg'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    of = lambda *names: common_folder([str(tmp_path / name) for name in names])  # noqa: E731
    assert of('a') == tmp_path / 'a' == of('a/1.jpg') == of('a/1.jpg', 'a/2.jpg')
    assert of('a/1.jpg', 'b/c/3.jpg') == of('a', 'b') == tmp_path
    url = 'https://example.org/1.jpg'
    assert common_folder([url, str(tmp_path / 'a/1.jpg')]) == tmp_path / 'a'
    assert common_folder([url]) is None
    names = [str(tmp_path / name) for name in ('b/c/3.jpg', 'a')]
    assert read_image_list([url, *names]).names == [url, 'b/c/3.jpg', 'a/1.jpg', 'a/2.jpg']


def test_a_list_of_paths_and_urls(tree):
    rows = tree.parent / 'list.txt'
    rows.write_text(f'{tree}/b.png\n\nhttps://example.org/x.jpg \r\n')
    listed = read_image_list([str(rows)])
    assert listed.paths == listed.names == [f'{tree}/b.png', 'https://example.org/x.jpg']
    assert listed.roots == [tree]


def test_ids_of_a_coco_file_are_kept(tree):
    content = dict(
        images=[dict(id=7, file_name='a/c.jpg'), dict(id=3, file_name='b.png')],
        categories=[dict(id=18, name='dog')],
    )
    ann = tree.parent / 'ann.json'
    ann.write_text(json.dumps(content))
    listed = read_image_list([str(ann)], img=str(tree))
    assert (listed.ids, listed.names) == ([7, 3], ['a/c.jpg', 'b.png'])
    assert listed.paths == [str(tree / 'a/c.jpg'), str(tree / 'b.png')]
    assert listed.category_ids == {'dog': 18}
    both = read_image_list([str(ann), str(tree)], img=str(tree))
    assert (both.ids, both.category_ids) == ([1, 2, 3], {})


def test_members_of_a_tar_file_are_read_where_they_lie(tmp_path):
    files = {'0/a.png': png(1), '0/a.json': b'{}', 'b#1.png': png(2), '._b.png': b'', 'c.jpg': b''}
    path = pack(tmp_path / 'shard.tar', files)
    listed = read_image_list([path])
    assert listed.names == ['shard.tar/0/a.png', 'shard.tar/b#1.png', 'shard.tar/c.jpg']
    assert [fileio.get(address) for address in listed.paths] == [png(1), png(2), b'']
    assert fileio.get_text(read_image_list([pack(path, {'t.png': b'text'})]).paths[0]) == 'text'
    with pytest.raises(OSError, match='ends within this member'):
        fileio.get(f'tar://{path}#{10**6}+5#x')


def test_frames_of_a_video(tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (32, 16))
    for frame in range(8):
        writer.write(np.full((16, 32, 3), 30 * frame, np.uint8))
    writer.release()
    listed = read_image_list([str(path)], stride=3)
    assert listed.names == ['clip.avi/000000.jpg', 'clip.avi/000003.jpg', 'clip.avi/000006.jpg']
    assert listed.times == {0: 0.0, 1: 0.6, 2: 1.2}
    for address, value in [*zip(listed.paths, (0, 90, 180), strict=True), (listed.paths[1], 90)]:
        pixels = mmcv.imfrombytes(fileio.get(address))
        assert pixels.shape == (16, 32, 3) and abs(pixels - value * 1.0).max() <= 2  # JPEG's
    with pytest.raises(OSError, match='clip.avi ends before frame 8'):
        fileio.get(f'video://{path}#8')
    assert fileio.get(listed.paths[1]) == fileio.get(f'video://{path}#3')
    every = read_image_list([listed.paths[0], str(path)])
    assert len(every) == 9 and every.times[8] == 1.4


def test_what_is_gone_is_told_from_what_is_broken(tree):
    listed = read_image_list([str(tree)], recursive=True)
    assert listed.vanished() is None
    (tree / 'b.png').unlink()
    assert listed.vanished() is None  # one image is not all
    tree.rename(tree.parent / 'away')
    assert listed.vanished() == tree
    tree.mkdir()  # as the place of a mount that is lost
    assert listed.vanished() == tree


def test_equal_lists_alone_have_one_fingerprint():
    lists = [ImageList(['a', 'b'], ['a', 'b'], ids) for ids in ([1, 2], [2, 1], [1, 2])]
    first, second, third = (each.fingerprint() for each in lists)
    assert first == third != second


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('l.txt', '\n \n', 'l.txt is empty'),
        ('l.txt', '/nowhere/at/all/1.jpg', 'There is no /nowhere/at/all, or nothing in it'),
        ('a.json', '{"images": 3}', "a.json is not a COCO annotation file: 'images' is no list"),
        ('a.json', '[]', 'a.json is not a COCO annotation file: it is no'),
        (
            'a.json',
            '{"images": [{"id": 1}], "categories": []}',
            'a.json: image 1 has neither file_name nor coco_url',
        ),
        (
            'a.json',
            json.dumps(dict(categories=[], images=2 * [dict(id=1, file_name='a')])),
            '1 of its images have the id of another',
        ),
        ('s.tar', 'no tar', 's.tar cannot be read as a tar file'),
        ('c.mp4', 'no video', 'c.mp4 is not there, or no video that OpenCV can read'),
    ],
)
def test_mistakes_name_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, OSError), match=message):
        read_image_list([str(tmp_path / name)])


def test_folders_and_tar_files_without_images(tmp_path):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='a and those in it have no image'):
        read_image_list([str(tmp_path / 'a')], recursive=True)
    with pytest.raises(ValueError, match='none of its 1 files is an image'):
        read_image_list([pack(tmp_path / 'a.tar', {'x.json': b''})])
    with pytest.raises(ValueError, match='unpacked by gunzip'):
        read_image_list([pack(tmp_path / 'b.tar', {'x.png': png(1)}, 'w:gz')])
