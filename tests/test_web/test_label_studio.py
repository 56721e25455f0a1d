"""What a Label Studio server is answered; needs Flask."""

import threading

import pytest

pytest.importorskip('flask')


from mmdet_dino_r1 import load_prompt_bank
from mmdet_dino_r1.web.label_studio import create_app
from mmdet_dino_r1.web.label_studio_backend import LabelStudioBackend

SIZE = dict(original_width=80, original_height=60)  # of the pictures
CAT = dict(x=10, y=20, width=50, height=50, rectanglelabels=['cat'])  # (8, 12, 48, 42) in pixels
DOG = dict(x=50, y=10, width=40, height=80, rectanglelabels=['dog'])


def config(*labels, tag='RectangleLabels'):
    inner = ''.join(f'<Label value="{label}"/>' for label in labels)
    image = '<Image name="image" value="$image"/>'
    return f'<View>{image}<{tag} name="label" toName="image">{inner}</{tag}></View>'


def task(id_, image='0.png', **more):
    return dict(id=id_, data=dict(image=image), **more)


def annotation(id_, *values, **more):
    result = [dict(from_name='label', value=value) for value in values]
    return dict(id=id_, result=result, **more)


class Server:
    """Has pictures and annotated tasks, without HTTP."""

    def __init__(self, photos):
        self.photos = photos
        self.annotated = []

    def image(self, where):
        return (self.photos / where).read_bytes()

    def annotated_tasks(self, project):
        assert project == 7
        return self.annotated


class Studio:
    """The server's side: what it asks a backend."""

    def __init__(self, backend):
        self.backend = backend
        self.client = create_app(backend).test_client()

    def setup(self, *labels):
        return self.client.post('/setup', json=dict(schema=config(*labels)))

    def predict(self, *tasks, labels=('cat', 'dog'), **params):
        sent = dict(tasks=tasks, label_config=config(*labels), params=params)
        return self.client.post('/predict', json=sent)

    def complete(self, *values):
        return self.predict(task(1), context=annotation(None, *values))

    def train(self, *labels):
        project = dict(id=7, label_config=config(*labels))
        sent = dict(action='START_TRAINING', project=project)
        return self.client.post('/webhook', json=sent)

    def trained(self, *labels):
        """The state once the training that was begun has ended."""
        assert self.train(*labels).status_code == 201
        for thread in threading.enumerate():
            if thread.name == 'training':
                thread.join()
        return self.client.get('/health').json['training']


@pytest.fixture
def open_studio(inferencer, photos, make_bank, tmp_path):
    def open_one(*classes, **options):
        bank = make_bank(*classes) if classes else None
        options = dict(score_thr=0) | options
        server, saved = Server(photos), tmp_path / 'saved.safetensors'
        return Studio(LabelStudioBackend(inferencer, server, saved, bank, **options))

    return open_one


@pytest.fixture
def studio(open_studio):
    return open_studio('cat', 'dog', 'cow')


def test_it_is_healthy(studio):
    health = studio.client.get('/health').json
    version = studio.setup('cat', 'dog').json['model_version']
    assert health == dict(status='UP', training='none yet', model_version=version)


def test_rectangles_are_what_the_inferencer_finds(studio, inferencer, photos, make_bank):
    answer = studio.predict(task(1), task(2, '1.png')).json
    inferencer.set_prompts(
        bank=load_prompt_bank(make_bank('cat', 'dog', 'cow')).aligned_to(('cat', 'dog'))
    )
    for name, prediction in zip(('0.png', '1.png'), answer['results'], strict=True):
        (found,) = inferencer(str(photos / name), score_thr=0)['predictions']
        assert len(found['scores']) == len(prediction['result']) > 0
        for box, label, score, region in zip(
            found['bboxes'],
            found['class_names'],
            found['scores'],
            prediction['result'],
            strict=True,
        ):
            x, y, width, height = (region['value'][key] for key in ('x', 'y', 'width', 'height'))
            corners = x * 0.8, y * 0.6, (x + width) * 0.8, (y + height) * 0.6
            assert corners == pytest.approx(box, abs=1e-3)
            assert region['value']['rectanglelabels'] == [label]
            assert region['score'] == pytest.approx(score)
            assert region | SIZE == region
        assert prediction['model_version'] == answer['model_version']


def test_only_labels_of_the_project_from_a_score_on(open_studio):
    assert labels_in(open_studio('cat', 'dog', 'cow').predict(task(1))) == {'cat', 'dog'}
    assert labels_in(open_studio('cat', 'dog').predict(task(1), labels=['dog', 'new'])) == {'dog'}
    (nothing,) = open_studio('cat', score_thr=0.999).predict(task(1)).json['results']
    assert nothing['result'] == [] and nothing['score'] == 0


def labels_in(answer):
    return {
        region['value']['rectanglelabels'][0]
        for prediction in answer.json['results']
        for region in prediction['result']
    }


def test_a_version_stands_for_prompts_and_threshold(open_studio):
    def version(*classes, **options):
        return open_studio(*classes, **options).setup('cat').json['model_version']

    assert version('cat') == version('cat')
    assert len({version('cat'), version('cat', 'dog'), version('cat', score_thr=0.5)}) == 3


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        ('gone.png', 'No such file'),
        ('none.txt', 'none.txt is no image'),
        (None, "have no image under 'image'"),
    ],
)
def test_an_image_that_cannot_be_used_does_not_end_a_batch(
    studio, tmp_path, image, message, capsys
):
    (tmp_path / 'none.txt').write_bytes(b'no image')
    image = image and str(tmp_path / image)
    first, broken, last = studio.predict(task(1), task(2, image), task(3)).json['results']
    assert broken == []
    assert [one['value'] for one in first['result']] == [one['value'] for one in last['result']]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'label_studio' in line]
    assert line.startswith('label_studio: Task 2: ') and message in line


def test_labels_without_prompts_are_refused_unless_they_are_to_be_taught(open_studio, studio):
    answer = studio.setup('cat', 'dgo')
    said = "The bank lacks 1 of 2 labels: 'dgo' (near: dog). Rename them in the labeling config, or"
    assert answer.status == f'400 {answer.json["error"]}'  # the server shows no more than that
    assert answer.json['error'].startswith(said) and '--new-labels' in answer.json['error']
    assert studio.setup('猫').status.startswith("400 The bank lacks 1 of 1 labels: '?'. ")
    assert open_studio('cat', new_labels=True).setup('cat', 'dgo').status_code == 200


def test_without_a_bank_nothing_is_found_before_a_training(open_studio):
    studio = open_studio()
    assert studio.setup('cat').json == dict(model_version='no prompts')
    assert studio.predict(task(1), task(2)).json['results'] == [[], []]


def test_a_box_that_is_drawn_brings_its_like(studio):
    (prediction,) = studio.complete(CAT).json['results']
    given, *others = prediction['result']
    shown = {key: given['value'][key] for key in ('x', 'y', 'width', 'height')}
    assert shown == pytest.approx({key: CAT[key] for key in shown})
    assert given['score'] == 1 and others
    assert all(one['value']['rectanglelabels'] == ['cat'] for one in others)


def test_what_is_drawn_is_not_found_once_more(studio, monkeypatch):
    # the box drawn is (8, 12, 48, 42); IoU with these: 0.75, and 0.33
    found = [([8, 12, 38, 42], 'cat', 0.5), ([28, 12, 68, 42], 'cat', 0.25)]
    monkeypatch.setattr(LabelStudioBackend, '_found', lambda *_, **__: found)
    (prediction,) = studio.complete(CAT).json['results']
    assert [one['score'] for one in prediction['result']] == [1, 0.25]
    assert prediction['score'] == 0.625


def test_what_cannot_be_completed(studio):
    answer = studio.complete({key: CAT[key] for key in ('x', 'y', 'width', 'height')})
    assert answer.status.startswith('400 Choose a label, then draw a rectangle')
    answer = studio.complete(dict(CAT, width=0))
    assert answer.status.startswith('400 Task 1: the box (8, 12, 8, 42) is empty')


def test_a_training_learns_what_was_accepted(open_studio, tuned_for, capsys):
    studio = open_studio('cat', 'cow', new_labels=True)
    studio.backend.server.annotated = [
        task(1, annotations=[annotation(4, DOG), annotation(3, CAT)]),  # the later one counts
        task(2, '1.png', annotations=[annotation(5, CAT), annotation(6, was_cancelled=True)]),
        task(3, '2.png', annotations=[annotation(8, CAT, DOG)]),
        task(4, 'gone.png', annotations=[annotation(9, CAT)]),
        task(5, annotations=[annotation(10)]),
        task(6, annotations=[annotation(11, CAT, was_cancelled=True)]),
    ]
    before = studio.setup('cat', 'dog').json['model_version']
    saved = studio.backend.save_bank
    assert studio.trained('cat', 'dog').endswith(f'steps on 3 images, {saved}')
    assert 'left out of the training: Task 4: ' in capsys.readouterr().err
    bank = load_prompt_bank(saved)
    assert bank.class_names == ('cat', 'cow', 'dog')
    assert bank.provenance['tuning']['images'] == 3
    record = bank.exemplars
    names = [record.file_names[record.image_ids.index(k)] for k in sorted(set(record.image_ids))]
    assert names == ['0.png', '1.png', '2.png']
    assert bank.counts == dict(cat=2, cow=0, dog=2)  # that of the later annotation of '0.png'
    version = studio.setup('cat', 'dog').json['model_version']
    assert version.startswith('tuned ') and version != before
    assert labels_in(studio.predict(task(1))) == {'cat', 'dog'}
    again = open_studio('cat', 'cow')  # the file is there: new labels are known, too
    assert again.setup('cat', 'dog').json['model_version'] == version


def test_a_training_begins_with_the_bank_each_time(open_studio, tuned_for, make_bank):
    studio = open_studio('cat')
    studio.backend.server.annotated = [task(1, annotations=[annotation(1, CAT)])]
    studio.trained('cat')
    # one image: the row that it begins with is kept
    (first,) = load_prompt_bank(studio.backend.save_bank).embeddings
    assert first.equal(load_prompt_bank(make_bank('cat')).embeddings[0])


@pytest.mark.parametrize(
    'annotations', [[], [annotation(1)], [annotation(1, CAT, was_cancelled=True)]]
)
def test_a_training_needs_an_accepted_box(studio, annotations):
    studio.backend.server.annotated = [task(1, annotations=annotations)]
    answer = studio.train('cat')
    said = 'Project 7 has no annotation with a box to learn from: submit some first.'
    assert answer.status == f'400 {said}'
    assert studio.client.get('/health').json['training'] == f'failed: {said}'
    assert studio.train('cat').json['error'] == said  # not that a training is running


def test_one_training_at_a_time_and_its_failure_is_told(studio, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def tune(*_):
        begun.set()
        go_on.wait(60)
        raise ZeroDivisionError('by zero')

    monkeypatch.setattr('mmdet_dino_r1.web.label_studio_backend.tune_in_turns', tune)
    studio.backend.server.annotated = [task(1, annotations=[annotation(1, CAT)])]
    assert studio.train('cat').status_code == 201
    assert begun.wait(60)
    assert studio.train('cat').status.startswith('400 A training is running: ')
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == 'training':
            thread.join()
    assert studio.client.get('/health').json['training'] == 'failed: by zero'
    assert not studio.backend.save_bank.exists()
    assert studio.trained('cat') == 'failed: by zero'  # another may be begun


def test_other_events_and_other_requests(studio):
    post = studio.client.post
    assert post('/webhook', json=dict(action='ANNOTATION_CREATED')).status_code == 201
    assert post('/predict', data=b'{').status.startswith("400 The request has no 'label_config'")
    schema = config('cat', tag='PolygonLabels')
    assert 'no <RectangleLabels>' in post('/setup', json=dict(schema=schema)).status
    assert studio.client.get('/gone').status_code == 404
    broken = post('/webhook', json=dict(action='START_TRAINING', project=dict(id=7)))
    assert broken.status == "500 The backend failed: KeyError: 'label_config'"
