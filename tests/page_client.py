"""An open web page as its server sees it; needs Flask."""

import re

from mmdet_dino_r1.web.server import TOKEN_HEADER

BOX, SECOND_BOX = [4, 6, 30, 34], [20, 10, 70, 44]


class Page:
    """An open page: a client that shows its token."""

    def __init__(self, app):
        self.client = app.test_client()
        self.text = self.client.get('/').get_data(as_text=True)
        (self.token,) = re.findall(r'name="page-token" content="([\w-]+)"', self.text)

    def post(self, path, **request):
        return self.client.post(path, headers={TOKEN_HEADER: self.token}, **request)

    def upload(self, content, name='a.png'):
        return self.post('/api/pictures', query_string=dict(name=name), data=content)

    def add(self, content, name='a.png'):
        answer = self.upload(content, name)
        assert answer.status_code == 200, answer.json
        return answer.json['id']


def prompts(*references, distractors=()):
    keys = ('picture', 'boxes', 'classes')
    listed = [dict(zip(keys, reference, strict=True)) for reference in references]
    return dict(references=listed, distractors=list(distractors))
