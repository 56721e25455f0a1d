"""Prompts of a page are tuned in the background: what comes of it, and what ends it."""

import time

import pytest
import torch

from mmdet_dino_r1 import load_prompt_bank
from mmdet_dino_r1.apis import Reference

pytest.importorskip('flask')

from page_client import BOX, SECOND_BOX, Page, prompts  # noqa: E402

from mmdet_dino_r1.web import shared_detector  # noqa: E402
from mmdet_dino_r1.web.server import Limits, create_app  # noqa: E402
from mmdet_dino_r1.web.shared_detector import SharedDetector  # noqa: E402


def improve(page, asked, complete):
    return page.post('/api/improve', json=asked | dict(complete=complete))


def status(page):
    return lambda: page.post('/api/improve/status').json


def ended(ask):
    """What is told once it has ended."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (told := ask())['state'] not in ('waiting', 'running'):
            return told
        time.sleep(0.02)
    raise AssertionError(told)


def bank_of(page, asked, tmp_path):
    answer = page.post('/api/bank', json=asked)
    assert answer.status_code == 200, answer.json
    file = tmp_path / f'{len(list(tmp_path.iterdir()))}.safetensors'  # an earlier one is mapped
    file.write_bytes(answer.data)
    return load_prompt_bank(file)


def alike(page, photos, count=3, **more):
    """Prompts of a picture, sent several times: what is learnt on one helps with the others."""
    content = (photos / '0.png').read_bytes()
    ids = [page.add(content, f'{k}.png') for k in range(count)]
    asked = prompts(*((id_, [BOX, SECOND_BOX], ['cat', 'dog']) for id_ in ids), **more)
    return ids, asked


def test_what_comes_of_it(photos, inferencer, tuned_for, tmp_path):
    page = Page(create_app(SharedDetector(inferencer)))
    ids, asked = alike(page, photos)
    assert improve(page, asked, ids).status_code == 200
    told = ended(status(page))
    assert told['state'] == 'done' and told['done'] == told['all'] > 0 and told['message'] == ''
    assert told['tuned'] == ['cat', 'dog'] and 0 < told['steps'] <= 3
    assert told['loss_after'] < told['loss_before']

    tuned = asked | dict(tuned=True)
    bank = bank_of(page, tuned, tmp_path)
    assert bank.provenance['tuning']['steps'] == told['steps']
    assert bank.exemplars.file_names == ('0.png', '0.png', '1.png', '1.png', '2.png', '2.png')
    before = bank_of(page, asked, tmp_path)
    assert bank.class_names == before.class_names
    assert not torch.equal(bank.embeddings, before.embeddings)
    found = [
        page.post('/api/detect', json=request | dict(picture=ids[0])).json['scores']
        for request in (tuned, asked, tuned)
    ]
    for scores, prompt_bank in zip(found, (bank, before, bank), strict=True):
        inferencer.set_prompts(bank=prompt_bank)
        (expected,) = inferencer(str(photos / '0.png'), score_thr=0.05)['predictions']
        assert scores == expected['scores']
    # both can be downloaded, whichever was detected last
    for request, scores in zip((tuned, asked), found, strict=False):
        coco = page.post('/api/coco', json=request | dict(pictures=ids, threshold=0)).json
        assert [one['score'] for one in coco['annotations']] == pytest.approx(scores)

    other = prompts((ids[0], [BOX], ['cat'])) | dict(tuned=True, picture=ids[0])
    answer = page.post('/api/detect', json=other)
    assert answer.status_code == 400 and 'press Improve again' in answer.json['error']


def test_a_class_on_one_picture_keeps_its_mean(photos, inferencer, tuned_for):
    page = Page(create_app(SharedDetector(inferencer)))
    ids, asked = alike(page, photos, count=1)
    improve(page, asked, ids)
    told = ended(status(page))
    assert told['state'] == 'done' and told['steps'] == 0 and told['tuned'] == []


def test_rows_of_the_bank_are_begun_with_and_what_is_not_complete_stays(
    photos, inferencer, tuned_for, tmp_path
):
    given = [Reference(photos / '1.png', [BOX, SECOND_BOX], ['cat', 'owl'])]
    start = inferencer.set_prompts(given)
    page = Page(create_app(SharedDetector(inferencer, start)))
    content = (photos / '0.png').read_bytes()
    ids = [page.add(content, f'{k}.png') for k in range(4)]
    asked = prompts(
        *((id_, [BOX, SECOND_BOX], ['cat', 'dog']) for id_ in ids[:3]),
        (ids[3], [SECOND_BOX], ['bat']),
    )
    averaged = bank_of(page, asked, tmp_path)
    assert averaged.class_names == ('cat', 'owl', 'dog', 'bat')
    assert torch.equal(averaged.embeddings[:2], start.embeddings)  # boxes of cats do not count yet
    improve(page, asked, ids[:3])
    assert ended(status(page))['tuned'] == ['cat', 'dog']
    bank = bank_of(page, asked | dict(tuned=True), tmp_path)
    assert set(bank.class_names) == {'cat', 'owl', 'dog', 'bat'}
    same = {
        name: torch.equal(row, averaged.embeddings[averaged.class_names.index(name)])
        for name, row in zip(bank.class_names, bank.embeddings, strict=True)
    }
    assert same == dict(cat=False, owl=True, dog=False, bat=True)


def test_others_detect_meanwhile_and_it_can_be_cancelled(photos, inferencer, tuned_for):
    tuned_for(2000)
    app = create_app(SharedDetector(inferencer))
    page, other = Page(app), Page(app)
    ids, asked = alike(page, photos)
    target, its = alike(other, photos, count=1)
    improve(page, asked, ids)
    for _ in range(3):
        answer = other.post('/api/detect', json=its | dict(picture=target[0]))
        assert answer.json['classes'] == ['cat', 'dog']
    improve(other, its, target)  # one at a time
    time.sleep(0.1)
    assert status(page)()['state'] == 'running' and status(other)()['state'] == 'waiting'
    page.post('/api/improve/cancel')
    told = ended(status(page))
    assert (told['state'], told['message']) == ('failed', 'Stopped.')
    assert ended(status(other))['state'] == 'done'  # its turn


@pytest.mark.parametrize(
    ('end', 'message'),
    [
        (lambda page, app: page.post('/api/improve/cancel'), 'Stopped.'),
        (lambda page, app: Page(app), 'Stopped.'),  # the server forgets the first page
        (lambda page, app: setattr(session_of(page, app), 'last_used', -1000), 'Stopped.'),
        (None, 'Stopped after 0 minutes, step 1 of'),
    ],
)
def test_what_ends_it(photos, inferencer, tuned_for, end, message):
    tuned_for(2000)
    limits = Limits(max_sessions=1, most_minutes=30 if end else 0)
    app = create_app(SharedDetector(inferencer), limits)
    page = Page(app)
    ids, asked = alike(page, photos)
    improve(page, asked, ids)
    job = session_of(page, app).improvement  # which outlives the page
    if end:
        end(page, app)
    told = ended(job.status)
    assert told['state'] == 'failed' and told['message'].startswith(message)


def session_of(page, app):
    return app.sessions._sessions[page.token]


def test_what_goes_wrong_is_told(photos, inferencer, tuned_for, monkeypatch):
    page = Page(create_app(SharedDetector(inferencer)))
    ids, asked = alike(page, photos)
    assert 'Nothing is being improved' in status(page)()['error']
    assert 'tick those' in improve(page, asked, []).json['error']
    assert 'reload the page' in improve(page, asked, None).json['error']
    monkeypatch.setattr(shared_detector, 'tune_references', lambda *_, **options: 1 / 0)
    improve(page, asked, ids)
    told = ended(status(page))
    assert told['message'] == 'The server failed: ZeroDivisionError: division by zero'
    answer = page.post('/api/detect', json=asked | dict(picture=ids[0], tuned=True))
    assert 'press Improve again' in answer.json['error']
    assert page.post('/api/detect', json=asked | dict(picture=ids[0])).status_code == 200
