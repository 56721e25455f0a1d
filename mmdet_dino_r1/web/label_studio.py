"""A machine learning backend of Label Studio: what its server asks over HTTP.

The server asks for predictions, hands on what somebody draws, and says when to train. Of an error
it shows a person the status line alone, so messages are there, too; of a training not even that.
"""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from .label_studio_backend import LabelStudioBackend, say
from .label_studio_tasks import LabelConfig

_log = logging.getLogger(__name__)


def create_app(backend: LabelStudioBackend) -> Flask:
    """The backend's answers to the requests of a Label Studio server."""
    app = Flask(__name__, static_folder=None)

    @app.get('/')
    @app.get('/health')
    def health() -> Response:
        version = backend.model_version
        return jsonify(status='UP', model_version=version, training=backend.training)

    @app.post('/setup')
    def setup() -> Response:
        backend.check(LabelConfig.parse(_sent('schema')))
        return jsonify(model_version=backend.model_version)

    @app.post('/predict')
    def predict() -> Response:
        config, tasks = LabelConfig.parse(_sent('label_config')), _sent('tasks')
        context = (request.json.get('params') or {}).get('context')
        if context:
            found = backend.complete(tasks[0], context.get('result') or [], config)
            return jsonify(results=[found], model_version=found['model_version'])
        results, version = backend.predict(tasks, config)
        return jsonify(results=results, model_version=version)

    @app.post('/webhook')
    def webhook() -> tuple[Response, int]:
        if _sent('action') == 'START_TRAINING':  # it tells of every annotation, too
            project = _sent('project')
            backend.train(project['id'], LabelConfig.parse(project['label_config']))
        return jsonify({}), 201

    @app.errorhandler(Exception)
    def answer(error: Exception) -> Response:
        message, code = str(error), 400
        if isinstance(error, HTTPException):
            message, code = error.description, error.code
        elif not isinstance(error, ValueError | OSError):
            _log.exception('A request failed.')
            message, code = f'The backend failed: {type(error).__name__}: {error}', 500
        message = ' '.join(message.split())
        say(message)
        response = jsonify(error=message)
        response.status = f'{code} {message.encode("ascii", "replace").decode()}'
        return response

    return app


def _sent(key: str) -> object:
    """What the server's JSON object has under a key."""
    sent = request.get_json(silent=True)
    if not isinstance(sent, dict) or not sent.get(key):
        raise ValueError(f'The request has no {key!r}: it is not one of a Label Studio server.')
    return sent[key]
