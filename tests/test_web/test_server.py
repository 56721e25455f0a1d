"""The page's server: what it accepts, what it answers, and whom it turns away."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from mmdet_dino_r1 import PromptBank, load_prompt_bank
from mmdet_dino_r1.apis import Reference, to_coco

pytest.importorskip('flask')

from page_client import BOX, SECOND_BOX, Page, prompts  # noqa: E402

from mmdet_dino_r1.web import server, shared_detector  # noqa: E402
from mmdet_dino_r1.web.server import TOKEN_HEADER, Limits, create_app  # noqa: E402
from mmdet_dino_r1.web.shared_detector import LOWEST_SCORE, SharedDetector  # noqa: E402

PAGE = Path(shared_detector.__file__).parent / 'page'


@pytest.fixture
def app(inferencer):
    return create_app(SharedDetector(inferencer), Limits(max_upload_mb=0.1, max_side=100))


@pytest.fixture
def page(app):
    return Page(app)


@pytest.fixture
def encodes(monkeypatch):
    """Counts the reference pictures that were encoded."""
    calls = []
    model = shared_detector.DINOR1Inferencer
    genuine = model.set_prompts

    def counted(self, references=None, *args, **kwargs):
        calls.extend(references or [])
        return genuine(self, references, *args, **kwargs)

    monkeypatch.setattr(model, 'set_prompts', counted)
    return calls


# --- the page -------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_elsewhere_and_has_nothing_inline(page):
    answer = page.client.get('/')
    assert answer.headers['Content-Security-Policy'].startswith("default-src 'self'; img-src")
    assert "'unsafe" not in answer.headers['Content-Security-Policy']
    assert answer.headers['Cache-Control'] == 'no-store'
    for text in [page.text, *(file.read_text() for file in PAGE.iterdir())]:
        assert '://' not in text and 'innerHTML' not in text
        assert not re.search(r'<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=', text)
    for name in re.findall(r'(?:src|href)="(page/[^"]+)"', page.text):
        assert page.client.get(f'/{name}').status_code == 200
    assert page.client.get('/page/page.js').mimetype == 'text/javascript'


def test_names_in_the_page_are_never_markup(inferencer):
    name = '"><script>alert(1)</script>'
    bank = PromptBank((name,), torch.zeros(1, inferencer.model.embed_dims))
    text = Page(create_app(SharedDetector(inferencer, bank))).text
    assert '<script>alert' not in text
    (settings,) = re.findall(r'name="page-settings" content="([^"]*)"', text)
    assert json.loads(html.unescape(settings))['bank_classes'] == [name]


def test_the_font_is_asked_for_only_where_it_is_installed(inferencer, tmp_path, monkeypatch):
    (tmp_path / 'names.otf').write_bytes(b'letters')
    for fonts, status in ([tmp_path / 'names.otf'], 200), ([], 404):
        monkeypatch.setattr(server, 'package_fonts', lambda fonts=fonts: fonts)
        page = Page(create_app(SharedDetector(inferencer)))
        assert ('names.css' in page.text) == (status == 200)
        assert page.client.get('/page/names.otf').status_code == status


# --- pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'WEBP', 'BMP'])
def test_pictures_are_accepted(page, encode, format):
    answer = page.upload(encode(0, format=format), '../../etc/\x00bad name.x')
    assert answer.json | dict(id='') == dict(id='', name='bad name.x', width=80, height=60)


def test_a_picture_is_turned_as_its_file_says(page, encode, tmp_path, inferencer):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    content = encode(0, format='JPEG', exif=exif)
    (tmp_path / 'turned.jpg').write_bytes(content)
    read = inferencer.pipeline(tmp_path / 'turned.jpg', 0)
    answer = page.upload(content).json
    assert (answer['height'], answer['width']) == read.size == (80, 60)


def test_the_pixels_are_those_the_pipeline_reads(inferencer, encode, tmp_path):
    content = encode(0, format='JPEG')
    (tmp_path / 'a.jpg').write_bytes(content)
    decoded = SharedDetector(inferencer).decode(content)
    np.testing.assert_array_equal(decoded, inferencer.pipeline(tmp_path / 'a.jpg', 0).pixels)


def test_files_that_are_refused(page, encode):
    for content, status, message in (
        (b'no picture at all', 400, 'x.png is not a picture that can be read'),
        (b'', 400, 'x.png is not a picture that can be read'),
        (encode(0, format='GIF'), 400, 'JPEG, PNG, WebP and BMP can'),
        (encode(0)[:4000], 400, 'x.png is damaged'),
        (encode(0, format='JPEG')[:1500], 400, 'x.png is damaged'),
        (encode(0, (101, 20)), 400, 'x.png is 101 x 20 pixels; the longer side may have 100'),
        (bytes(100_001), 413, 'The file is larger than 0.1 MB'),
    ):
        answer = page.upload(content, 'x.png')
        assert answer.status_code == status
        assert message in answer.json['error']
    page.add(encode(0))  # and it works on


def test_dimensions_are_looked_up_before_anything_is_decoded(page, monkeypatch, encode):
    content = encode(0, (101, 20))
    monkeypatch.setattr(Image.Image, 'load', lambda self: pytest.fail('was decoded'))
    assert '--max-side' in page.upload(content).json['error']
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert 'too many pixels' in page.upload(content).json['error']


# --- who is turned away -----------------------------------------------------------------------


def test_nothing_is_done_without_the_token_of_an_open_page(app, page):
    for headers in ({}, {TOKEN_HEADER: 'guessed'}):
        for path in ('pictures', 'detect', 'coco', 'bank', 'improve', 'improve/status'):
            answer = page.client.post(f'/api/{path}', headers=headers)
            assert answer.status_code == 403 and 'reload the page' in answer.json['error']
        assert page.client.delete('/api/pictures/1', headers=headers).status_code == 403


def test_only_local_names_are_answered_to_on_loopback(page, inferencer):
    for host, status in (
        ('127.0.0.1:7860', 200),
        ('localhost', 200),
        ('[::1]:7860', 200),
        ('evil.example', 403),
        ('127.0.0.1.evil.example:7860', 403),
        ('[', 403),
    ):
        assert page.client.get('/', headers=dict(Host=host)).status_code == status, host
    public = create_app(SharedDetector(inferencer), local=False).test_client()
    assert public.get('/', headers=dict(Host='lab.example')).status_code == 200


def test_pages_and_pictures_are_bounded(inferencer, encode):
    app = create_app(SharedDetector(inferencer), Limits(max_pictures=2, max_sessions=2))
    first = Page(app)
    kept = [first.add(encode(seed)) for seed in range(2)]
    answer = first.upload(encode(2))
    assert answer.status_code == 400 and 'at most 2 pictures' in answer.json['error']
    headers = {TOKEN_HEADER: first.token}
    assert first.client.delete(f'/api/pictures/{kept[0]}', headers=headers).status_code == 200
    first.add(encode(2))

    pages = [Page(app) for _ in range(3)]  # empty ones give way before the one with pictures
    assert len(app.sessions) == 2
    assert [opened.upload(encode(0)).status_code for opened in pages] == [403, 403, 200]
    first.client.delete(f'/api/pictures/{kept[1]}', headers=headers)  # the last one used
    Page(app)
    assert pages[2].upload(encode(1)).status_code == 403
    assert first.upload(encode(1)).status_code == 200


# --- detection --------------------------------------------------------------------------------


def test_what_is_found_is_what_the_inferencer_finds(page, photos, inferencer, encodes):
    ids = [page.add((photos / f'{i}.png').read_bytes(), f'{i}.png') for i in range(3)]
    asked = prompts((ids[0], [BOX, SECOND_BOX], ['cat', 'dog']), (ids[1], [BOX], ['cat']))
    found = [page.post('/api/detect', json=asked | dict(picture=i)).json for i in ids[1:]]
    assert len(encodes) == 2  # two references, once, for two targets

    inferencer.set_prompts(
        [
            Reference(photos / '0.png', [BOX, SECOND_BOX], ['cat', 'dog']),
            Reference(photos / '1.png', [BOX], 'cat'),
        ]
    )
    paths = [photos / '1.png', photos / '2.png']
    wanted = inferencer(paths, score_thr=LOWEST_SCORE)
    for got, expected in zip(found, wanted['predictions'], strict=True):
        assert got == expected | dict(image=Path(expected['image']).name, classes=['cat', 'dog'])
        assert len(got['scores']) == 20


def test_boxes_are_encoded_again_only_where_they_changed(page, photos, inferencer, encodes):
    reference, target = (page.add((photos / f'{i}.png').read_bytes()) for i in range(2))
    both = (reference, [BOX, SECOND_BOX], ['cat', 'dog'])
    asked = prompts(both)
    for request in (asked, asked, prompts(both, distractors=['dog']), asked):
        answer = page.post('/api/detect', json=request | dict(picture=target))
        assert answer.status_code == 200
    assert page.post('/api/bank', json=asked).status_code == 200
    assert len(encodes) == 1
    other = Page(page.client.application)  # another page's prompts in between
    its = prompts((other.add((photos / '2.png').read_bytes()), [BOX], ['owl']))
    assert other.post('/api/bank', json=its).status_code == 200
    again = page.post('/api/detect', json=asked | dict(picture=target))
    assert len(encodes) == 2 and again.json['classes'] == ['cat', 'dog']
    moved = prompts((reference, [BOX, BOX], ['cat', 'dog']))
    page.post('/api/detect', json=moved | dict(picture=target))
    assert len(encodes) == 3


def test_a_distractor_only_competes(page, photos, inferencer):
    reference, target = (page.add((photos / f'{i}.png').read_bytes()) for i in range(2))
    boxes = (reference, [BOX, SECOND_BOX], ['cat', 'dog'])
    found = page.post(
        '/api/detect', json=prompts(boxes, distractors=['dog']) | dict(picture=target)
    ).json
    inferencer.set_prompts(
        [Reference(photos / '0.png', [BOX, SECOND_BOX], ['cat', 'dog'])], distractors=['dog']
    )
    (expected,) = inferencer(photos / '1.png', score_thr=LOWEST_SCORE)['predictions']
    assert found['scores'] == expected['scores'] and found['classes'] == ['cat']
    all_of_them = prompts(boxes, distractors=['cat', 'dog']) | dict(picture=target)
    answer = page.post('/api/detect', json=all_of_them)
    assert answer.status_code == 400 and 'nothing is left' in answer.json['error']


def test_the_bank_that_is_downloaded(page, photos, inferencer, tmp_path):
    reference = page.add((photos / '0.png').read_bytes(), 'shelf.png')
    answer = page.post('/api/bank', json=prompts((reference, [BOX], ['cat'])))
    (tmp_path / 'bank.safetensors').write_bytes(answer.data)
    bank = load_prompt_bank(tmp_path / 'bank.safetensors')
    expected = inferencer.set_prompts([Reference(photos / '0.png', [BOX], 'cat')])
    assert torch.equal(bank.embeddings, expected.embeddings)
    assert bank.class_names == ('cat',) and bank.exemplars.file_names == ('shelf.png',)
    assert bank.exemplars.boxes.tolist() == [BOX]
    assert bank.provenance['weights'] == expected.provenance['weights']
    assert load(answer.data).keys() >= {'embeddings'}


def test_a_picture_with_two_boxes_is_one_exemplar_of_a_joint_prompt_encoder(
    photos, joint_inferencer, inferencer, tmp_path
):
    page = Page(create_app(SharedDetector(joint_inferencer)))
    (settings,) = re.findall(r'name="page-settings" content="([^"]+)"', page.text)
    assert json.loads(html.unescape(settings))['encoded_jointly'] is True
    assert not SharedDetector(inferencer).encoded_jointly
    ids = [page.add((photos / f'{k}.png').read_bytes(), f'{k}.png') for k in range(2)]
    cats = prompts((ids[0], [BOX, SECOND_BOX], ['cat', 'cat']), (ids[1], [BOX], ['cat']))
    file = tmp_path / 'bank.safetensors'
    file.write_bytes(page.post('/api/bank', json=cats).data)
    record = load_prompt_bank(file).exemplars
    assert record.members == [[0, 1], [2]] and record.file_names == ('0.png', '0.png', '1.png')


def test_a_bank_to_start_with(photos, inferencer):
    bank = inferencer.set_prompts([Reference(photos / '0.png', [BOX], 'cat')])
    page = Page(create_app(SharedDetector(inferencer, bank)))
    reference, target = (page.add((photos / f'{i}.png').read_bytes()) for i in range(2))
    alone = page.post('/api/detect', json=prompts() | dict(picture=target))
    assert alone.json['classes'] == ['cat']
    (expected,) = inferencer(photos / '1.png', score_thr=LOWEST_SCORE)['predictions']
    assert alone.json['scores'] == expected['scores']
    dog = prompts((reference, [SECOND_BOX], ['dog']))
    joined = page.post('/api/detect', json=dog | dict(picture=target))
    assert joined.json['classes'] == ['cat', 'dog']
    both = prompts((reference, [BOX, SECOND_BOX], ['cat', 'dog']))  # a cat is for an improvement
    again = page.post('/api/detect', json=both | dict(picture=target))
    assert again.json == joined.json


def test_results_as_coco(page, photos, inferencer):
    reference, *targets = (page.add((photos / f'{i}.png').read_bytes(), f'{i}') for i in range(3))
    asked = prompts((reference, [BOX, SECOND_BOX], ['cat', 'dog']))
    of_targets = asked | dict(pictures=targets)
    nothing = page.post('/api/coco', json=of_targets | dict(threshold=0.5))
    assert nothing.status_code == 400 and 'press Detect' in nothing.json['error']
    found = [page.post('/api/detect', json=asked | dict(picture=i)).json for i in targets]
    threshold = sorted(score for of_image in found for score in of_image['scores'])[-7]
    coco = page.post('/api/coco', json=of_targets | dict(threshold=threshold)).json
    assert len(coco['annotations']) == 7
    assert [image['file_name'] for image in coco['images']] == ['1', '2']
    whole = page.post('/api/coco', json=of_targets | dict(threshold=0)).json
    assert whole == to_coco(dict(predictions=found, classes=['cat', 'dog']))
    one = page.post('/api/coco', json=asked | dict(pictures=targets[1:], threshold=0)).json
    assert [image['file_name'] for image in one['images']] == ['2']
    changed = prompts((reference, [BOX], ['cat'])) | dict(pictures=targets, threshold=0)
    assert page.post('/api/coco', json=changed).status_code == 400


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(references=None), 'reload the page'),
        (dict(references=[1]), 'reload the page'),
        (dict(distractors=[1]), 'needs a name'),
        (dict(references=[]), 'draw a box'),
        (dict(picture='gone'), 'add it again'),
        (dict(picture=[1]), 'add it again'),
        (dict(boxes=[[1, 2, 3]]), 'four numbers'),
        (dict(boxes=[[1, 2, 3, float('nan')]]), 'four numbers'),
        (dict(boxes=[['a', 2, 3, 4]]), 'could not convert'),
        (dict(boxes=[[4, 4, 900, 30]]), 'shelf.png: (4, 4, 900, 30) reaches outside'),
        (dict(boxes=[[4, 4, 4, 30]]), 'is empty'),
        (dict(boxes=[]), 'needs a class name'),
        (dict(classes=[]), 'needs a class name'),
        (dict(classes=['  ']), 'A class needs a name'),
        (dict(classes=['x' * 81]), 'at most 80 characters'),
        (dict(boxes=[BOX] * 501, classes=['cat'] * 501), 'At most 500 boxes'),
    ],
)
def test_requests_that_are_wrong(page, encode, change, message):
    picture = page.add(encode(0), 'shelf.png')
    asked = prompts((picture, [BOX], ['cat'])) | dict(picture=picture)
    for key, value in change.items():
        (asked if key in asked else asked['references'][0])[key] = value
    answer = page.post('/api/detect', json=asked)
    assert answer.status_code == 400
    assert message in answer.json['error']


def test_every_error_is_json(page, encode, monkeypatch):
    assert page.post('/api/detect', data=b'{').json['error'].startswith('The request is not')
    assert page.client.get('/gone').json.keys() == {'error'}
    assert page.client.get('/api/detect').status_code == 405
    picture = page.add(encode(0))
    monkeypatch.setattr(SharedDetector, 'detect', lambda *_: 1 / 0)
    answer = page.post('/api/detect', json=prompts() | dict(picture=picture))
    assert answer.status_code == 500
    assert answer.json['error'] == 'The server failed: ZeroDivisionError: division by zero'


def test_flask_is_needed_by_the_applications_alone():
    script = (
        'import sys, mmdet_dino_r1.tools.web_demo, mmdet_dino_r1.tools.label_studio; '
        'import mmdet_dino_r1.web.shared_detector, mmdet_dino_r1.web.label_studio_backend; '
        "assert not {'flask', 'waitress'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, '-c', script], check=True)
