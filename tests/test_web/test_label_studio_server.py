"""The backend beside a real Label Studio server: LABEL_STUDIO=/path/to/label-studio, or on PATH."""

import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial

import pytest
from conftest import find_free_port

requests = pytest.importorskip('requests')
pytest.importorskip('flask')
pytest.importorskip('waitress')

COMMAND = os.environ.get('LABEL_STUDIO') or shutil.which('label-studio')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMMAND, reason='needs label-studio on PATH, or named by LABEL_STUDIO'),
]
LEGACY = '0123456789abcdef' * 2 + '01234567'
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" '
    'smart="true"><Label value="cat"/><Label value="dog"/></RectangleLabels></View>'
)


class Studio:
    """A user of the server."""

    def __init__(self, url):
        self.url = url
        self.session = requests.Session()
        self.session.headers['Authorization'] = f'Token {LEGACY}'

    def __call__(self, method, path, status=(200, 201), **request):
        answer = self.session.request(method, self.url + path, timeout=120, **request)
        assert answer.status_code in status, answer.text
        return answer.json() if answer.content else None

    def predictions(self, task):
        """Those of the newest model, after asking for all tasks."""
        where = f'/api/dm/actions?id=retrieve_tasks_predictions&project={self.project}'
        self('POST', where, json=dict(selectedItems=dict(all=True, excluded=[])))
        return sorted(self('GET', f'/api/tasks/{task}')['predictions'], key=lambda one: one['id'])


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.5)
    return value


@pytest.fixture(scope='module')
def studio(tmp_path_factory):
    root, port = tmp_path_factory.mktemp('studio'), find_free_port()
    account = f'--username a@example.com --password of-no-use --user-token {LEGACY}'
    where = f'--no-browser --data-dir {root} --port {port}'
    with open(root / 'log.txt', 'w') as log:
        server = subprocess.Popen(
            [COMMAND, 'start', *where.split(), *account.split(), '--enable-legacy-api-token'],
            stdout=log,
            stderr=log,
            # else it talks to no backend on its own machine
            env=os.environ | dict(USE_DEFAULT_BANNED_SUBNETS='false', COLLECT_ANALYTICS='false'),
        )
    user = Studio(f'http://localhost:{port}')

    def up():
        assert server.poll() is None, (root / 'log.txt').read_text()[-2000:]
        try:
            return requests.get(f'{user.url}/health', timeout=2).ok
        except requests.RequestException:
            return False

    try:
        until(up)
        yield user
    finally:
        server.kill()
        server.wait()


class Backend:
    """The command, while it runs."""

    def __init__(self, files, more, token, url):
        command = [sys.executable, '-m', 'mmdet_dino_r1.tools.label_studio', *map(str, files)]
        self.process = subprocess.Popen(
            [*command, *map(str, more), '--port', '0', '--device', 'cpu', '--url', url],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(LABEL_STUDIO_API_KEY=token),
        )
        line = next(line for line in self.process.stdout if line.startswith('Enter http'))
        self.url = re.search(r'http://\S+/', line)[0]

    def health(self):
        return requests.get(f'{self.url}health', timeout=20).json()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize('kind', ['personal', 'legacy'])
def test_predict_complete_train_predict(kind, studio, model_files, make_bank, photos, tmp_path):
    bank = make_bank('cat', 'dog', 'cow')
    token = LEGACY if kind == 'legacy' else studio('POST', '/api/token/')['token']
    project = studio('POST', '/api/projects', json=dict(title='Animals', label_config=CONFIG))
    studio.project = project['id']
    for name in ('0.png', '1.png', '2.png'):
        picture = dict(file=(name, (photos / name).read_bytes()))
        studio('POST', f'/api/projects/{studio.project}/import', files=picture)
    tasks = studio('GET', f'/api/tasks?project={studio.project}')['tasks']
    first, second, third = sorted(task['id'] for task in tasks)
    saved = tmp_path / 'tuned.safetensors'
    more = ['--bank', bank, '--save-bank', saved, '--score-thr', 0]
    start = partial(Backend, model_files, more, token, studio.url)
    with start() as backend:
        connection = dict(project=studio.project, url=backend.url, title='tiny')
        model = studio('POST', '/api/ml', json=connection | dict(is_interactive=True))
        (before,) = studio.predictions(first)
        assert before['model_version'] == backend.health()['model_version']
        region = before['result'][0]
        assert (region['original_width'], region['original_height']) == (80, 60)
        assert region['value']['rectanglelabels'][0] in ('cat', 'dog') and 0 < region['score'] < 1
        assert before['score'] == pytest.approx(
            sum(one['score'] for one in before['result']) / len(before['result'])
        )

        drawn = dict(x=10, y=10, width=40, height=50, rotation=0, rectanglelabels=['cat'])
        sent = dict(id='r', type='rectanglelabels', from_name='label', to_name='image', value=drawn)
        asked = dict(task=first, context=dict(result=[sent]))
        complete = studio('POST', f'/api/ml/{model["id"]}/interactive-annotating', json=asked)
        given, *others = complete['data']['result']
        shown = {key: round(number, 4) for key, number in given['value'].items() if key in 'xy'}
        assert (shown, given['score']) == (dict(x=10, y=10), 1)
        assert {one['value']['rectanglelabels'][0] for one in others} == {'cat'}

        studio('POST', f'/api/ml/{model["id"]}/train', json={})
        assert 'has no annotation with a box' in backend.health()['training']
        more_labels = CONFIG.replace('"dog"', '"dgo"')
        studio('PATCH', f'/api/projects/{studio.project}', json=dict(label_config=more_labels))
        (connected,) = studio('GET', f'/api/ml?project={studio.project}')
        assert "lacks 1 of 2 labels: 'dgo' (near: dog)" in connected['error_message']
        studio('PATCH', f'/api/projects/{studio.project}', json=dict(label_config=CONFIG))

        other = dict(sent, id='s', value=dict(drawn, x=55, rectanglelabels=['dog']))
        for task in (first, second):
            annotation = dict(result=[sent, other])
            studio('POST', f'/api/tasks/{task}/annotations/', json=annotation)
        studio('POST', f'/api/ml/{model["id"]}/train', json={})
        until(lambda: backend.health()['training'].startswith(('done', 'failed')))
        assert 'steps on 2 images' in backend.health()['training']
        assert saved.is_file()
        version = backend.health()['model_version']
        assert version != before['model_version']
        after = studio.predictions(third)
        assert [one['model_version'] for one in after] == [before['model_version'], version]
    with start() as backend:
        assert backend.health()['model_version'] == version
