"""What Label Studio has: its labeling config, rectangles in per cent, images and annotations."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from mmdet_dino_r1.web.label_studio_tasks import LabelConfig, LabelStudioServer, upright_box

CONFIG = (
    '<View><Image name="photo" value="$url"/><RectangleLabels name="kind" toName="photo">'
    '<Label value="cat"/><Label value="dog"/></RectangleLabels></View>'
)
SIZE = (100, 200)  # height, width


def rectangle(x, y, width, height, **more):
    return dict(x=x, y=y, width=width, height=height, **more)


def test_config():
    assert LabelConfig.parse(CONFIG) == ('kind', 'photo', 'url', ('cat', 'dog'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('<View>', 'is no XML: no element found'),
        (CONFIG.replace('Rectangle', 'Polygon'), 'no <RectangleLabels> with labels'),
        (CONFIG.replace('<Image', '<Video'), 'for an <Image>: .* choose the template'),
        (CONFIG.replace('toName="photo"', 'toName="other"'), 'no <RectangleLabels>'),
        ('<View><Image name="a"/><RectangleLabels toName="a"/></View>', 'no <RectangleLabels>'),
    ],
)
def test_config_without_rectangles(text, message):
    with pytest.raises(ValueError, match=message):
        LabelConfig.parse(text)


@pytest.mark.parametrize(
    ('value', 'box'),
    [
        (rectangle(10, 20, 30, 40), (20, 20, 80, 60)),
        # a quarter turn about (100, 20): what reached 40 right reaches down, 30 down reaches left
        (rectangle(50, 20, 20, 30, rotation=90), (70, 20, 100, 60)),
        (rectangle(50, 20, 20, 30, rotation=360), (100, 20, 140, 50)),
        (rectangle(90, 90, 20, 20), (180, 90, 200, 100)),  # clipped
        (rectangle(10, 0, 20, 30, rotation=90), (0, 0, 20, 40)),  # clipped at the left
    ],
)
def test_box_of_a_rectangle(value, box):
    assert upright_box(value, SIZE) == pytest.approx(box)


def test_boxes_are_those_of_the_rectangles_of_the_config():
    regions = [
        dict(from_name='kind', value=rectangle(0, 0, 50, 50, rectanglelabels=['dog'])),
        dict(from_name='kind', value=rectangle(0, 0, 10, 10)),  # no label was chosen
        dict(from_name='other', value=rectangle(0, 0, 10, 10, rectanglelabels=['cat'])),
        dict(from_name='text', value=dict(choices=['cat'])),
    ]
    boxes, labels = LabelConfig.parse(CONFIG).boxes(regions, SIZE)
    assert (boxes, labels) == ([pytest.approx((0, 0, 100, 50))], ['dog'])


def test_prediction():
    found = [((20, 20, 80, 60), 'dog', 0.75), ((0, 0, 200, 100), 'cat', 0.25)]
    prediction = LabelConfig.parse(CONFIG).prediction(found, SIZE, 'v')
    first, second = prediction.pop('result')
    assert prediction == dict(score=0.5, model_version='v')
    assert first.pop('id') != second['id']
    assert first.pop('value') == rectangle(10, 20, 30, 40, rotation=0, rectanglelabels=['dog'])
    assert first == dict(
        type='rectanglelabels',
        from_name='kind',
        to_name='photo',
        original_width=200,
        original_height=100,
        image_rotation=0,
        score=0.75,
    )
    assert second['value'] == rectangle(0, 0, 100, 100, rotation=0, rectanglelabels=['cat'])


def test_prediction_of_nothing():
    empty = LabelConfig.parse(CONFIG).prediction([], SIZE, 'v')
    assert empty == dict(result=[], score=0, model_version='v')


@contextmanager
def answering(answers):
    """An HTTP server's address, and what it was asked: (method, path, Authorization)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
            asked.append((self.command, self.path, self.headers.get('Authorization'), body))
            status, content = answers.get(self.path, (404, b''))
            self.send_response(status)
            if status == 302:
                self.send_header('Location', content.decode())
                content = b''
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', asked
    server.shutdown()
    server.server_close()


def test_an_upload_is_asked_for_with_the_token():
    with answering({'/data/upload/1/a%20b.png': (200, b'picture')}) as (url, asked):
        server = LabelStudioServer(url + '/', 'abc')
        assert server.image('/data/upload/1/a b.png') == b'picture'
        assert server.image(f'{url}/data/upload/1/a%20b.png') == b'picture'
    assert [one[:3] for one in asked] == [('GET', '/data/upload/1/a%20b.png', 'Token abc')] * 2


def test_a_personal_token_is_exchanged():
    answers = {'/api/token/refresh/': (200, b'{"access": "short"}'), '/a.png': (200, b'picture')}
    with answering(answers) as (url, asked):
        assert LabelStudioServer(url, 'x.y.z').image('/a.png') == b'picture'
    (*_, sent), fetched = asked
    assert json.loads(sent) == dict(refresh='x.y.z')
    assert fetched[:3] == ('GET', '/a.png', 'Bearer short')


def test_nobody_else_sees_the_token():
    with answering({'/a.png': (200, b'picture')}) as (elsewhere, asked):
        moved = {'/moved.png': (302, f'{elsewhere}/a.png'.encode())}
        with answering(moved) as (url, asked_first):
            server = LabelStudioServer(url, 'abc')
            assert server.image('/moved.png') == server.image(f'{elsewhere}/a.png') == b'picture'
    assert [one[2] for one in asked_first] == ['Token abc']
    assert [one[2] for one in asked] == [None, None]


def test_a_folder_of_this_machine(tmp_path):
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root' / 'a b.png').write_bytes(b'picture')
    (tmp_path / 'secret').write_bytes(b'no picture')
    server = LabelStudioServer(root=tmp_path / 'root')
    assert server.image('/data/local-files/?d=a%20b.png') == b'picture'
    for outside in ('../secret', f'{tmp_path}/secret'):
        with pytest.raises(ValueError, match='lies outside of --root'):
            server.image(f'/data/local-files/?d={outside}')
    with pytest.raises(OSError, match='gone'):
        server.image('/data/local-files/?d=gone.png')


@pytest.mark.parametrize(
    ('where', 'message'),
    [
        ('/data/upload/1/a.png', '--url or --api-key is missing: start with both'),
        ('/data/local-files/?d=a.png', '--url or --api-key is missing'),
        ('s3://bucket/a.png', 'only uploads, local files and http'),
        ('file:///etc/hostname', 'only uploads, local files and http'),
        ('http://127.0.0.1:1/a.png', 'a.png cannot be fetched: .*refused'),
    ],
)
def test_what_cannot_be_fetched(where, message):
    with pytest.raises(ValueError, match=message):
        LabelStudioServer().image(where)


def test_annotated_tasks_and_a_refused_token():
    path = '/api/projects/7/export?exportType=JSON'
    with answering({path: (200, b'[{"id": 1}]')}) as (url, _):
        assert LabelStudioServer(url, 'abc').annotated_tasks(7) == [dict(id=1)]
    with answering({path: (401, b'')}) as (url, _):
        with pytest.raises(ValueError, match='Unauthorized; is --api-key valid'):
            LabelStudioServer(url, 'abc').annotated_tasks(7)
