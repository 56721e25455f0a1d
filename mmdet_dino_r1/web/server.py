"""The page's server: a Flask application around one model.

Whoever reaches the address may use it; there are no users. What protects them from other sites in
the same browser: the page carries a secret, its session's token, that every request but reading
must show in a header; on loopback only local names are answered to, lest a site's own name be
pointed here (DNS rebinding); and the page may load nothing from elsewhere (CSP).
"""

from __future__ import annotations

import json
import logging
import mimetypes
from dataclasses import dataclass
from functools import partial
from threading import Lock
from urllib.parse import urlsplit

from flask import Flask, Response, g, jsonify, render_template, request, send_file
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from ..utils.fonts import package_fonts
from .page_session import LONGEST_CLASS_NAME, PageSessions, SessionGone
from .shared_detector import LOWEST_SCORE, SharedDetector
from .uploads import read_upload

TOKEN_HEADER = 'X-Page-Token'
_LOCAL_NAMES = {'localhost', '127.0.0.1', '::1'}
_HEADERS = {
    'Content-Security-Policy': (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What the server accepts."""

    max_upload_mb: float = 20  # (10^6 bytes) of a picture's file
    max_side: int = 8000  # pixels
    max_pictures: int = 24  # of a page, references and targets together
    max_sessions: int = 8  # open pages
    most_minutes: float = 30  # that an improvement of prompts may take

    @property
    def max_upload_bytes(self) -> int:
        """The same in bytes."""
        return int(self.max_upload_mb * 1e6)


def create_app(detector: SharedDetector, limits: Limits | None = None, local: bool = True) -> Flask:
    """Build the application; ``local``: it listens on loopback, and answers to local names only."""
    limits = limits or Limits()
    # Windows may know .js as plain text, which browsers refuse to run with `nosniff`.
    mimetypes.add_type('text/javascript', '.js')
    app = Flask(__name__, static_folder='page', static_url_path='/page', template_folder='page')
    app.config['MAX_CONTENT_LENGTH'] = limits.max_upload_bytes
    app.sessions = PageSessions(limits.max_sessions, limits.max_pictures)
    reading, fonts = Lock(), package_fonts()
    settings = dict(
        max_upload_mb=limits.max_upload_mb,
        lowest_score=LOWEST_SCORE,
        longest_class_name=LONGEST_CLASS_NAME,
        bank_classes=detector.bank_classes,
        encoded_jointly=detector.encoded_jointly,
    )
    _guard(app, local)
    _answer_errors_as_json(app, limits)

    @app.get('/')
    def page() -> Response:
        token = app.sessions.open().token
        response = app.make_response(
            render_template('index.html', token=token, settings=json.dumps(settings), fonts=fonts)
        )
        response.headers['Cache-Control'] = 'no-store'  # each page has a session of its own
        return response

    if fonts:
        # names.css asks for it where the page has such letters
        app.add_url_rule('/page/names.otf', view_func=partial(send_file, fonts[0]), endpoint='font')

    @app.post('/api/pictures')
    def add_picture() -> Response:
        name, content = request.args.get('name', ''), request.get_data()
        with reading:  # unpacked, a picture may take hundreds of MB
            picture = read_upload(name, content, limits.max_side, detector.decode)
        height, width = picture.size
        return jsonify(id=g.page.add(picture), name=picture.name, width=width, height=height)

    @app.delete('/api/pictures/<picture_id>')
    def remove_picture(picture_id: str) -> Response:
        g.page.remove(picture_id)
        return jsonify({})

    @app.post('/api/detect')
    def detect() -> Response:
        sent = _sent_object()
        return jsonify(detector.detect(g.page, g.page.read_prompts(sent), sent.get('picture')))

    @app.post('/api/coco')
    def coco() -> Response:
        sent = _sent_object()
        threshold = sent.get('threshold')
        if not isinstance(threshold, int | float):
            raise ValueError('threshold must be a number.')
        prompts, pictures = g.page.read_prompts(sent), _ids(sent, 'pictures')
        return jsonify(detector.coco(g.page, prompts, pictures, threshold))

    @app.post('/api/bank')
    def bank() -> Response:
        content = detector.bank_file(g.page, g.page.read_prompts(_sent_object()))
        return Response(content, mimetype='application/octet-stream')

    @app.post('/api/improve')
    def improve() -> Response:
        sent = _sent_object()
        prompts, complete = g.page.read_prompts(sent), _ids(sent, 'complete')
        detector.improve(g.page, prompts, complete, limits.most_minutes)
        return jsonify({})

    @app.post('/api/improve/status')
    def improve_status() -> Response:
        if g.page.improvement is None:
            raise ValueError('Nothing is being improved.')
        return jsonify(g.page.improvement.status())

    @app.post('/api/improve/cancel')
    def improve_cancel() -> Response:
        if g.page.improvement is not None:
            g.page.improvement.cancel()
        return jsonify({})

    return app


def _sent_object() -> dict:
    """The JSON object in the request's body."""
    sent = request.get_json(silent=True)
    if not isinstance(sent, dict):
        raise ValueError('The request is not what this page sends; reload the page.')
    return sent


def _ids(sent: dict, key: str) -> list:
    """A list of pictures' ids in what was sent."""
    ids = sent.get(key)
    if not isinstance(ids, list):
        raise ValueError('The request is not what this page sends; reload the page.')
    return ids


def _guard(app: Flask, local: bool) -> None:
    """Turn away requests that do not come from the page, and send the protecting headers."""

    @app.before_request
    def check_origin() -> tuple[Response, int] | None:
        if local and _host_name(request.host) not in _LOCAL_NAMES:
            return jsonify(error='This server answers to local names only.'), 403
        if request.method not in ('GET', 'HEAD', 'OPTIONS'):
            g.page = app.sessions.get(request.headers.get(TOKEN_HEADER, ''))
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response


def _answer_errors_as_json(app: Flask, limits: Limits) -> None:
    """Every error becomes ``{error: message}``, for the page to show."""

    @app.errorhandler(Exception)
    def answer(error: Exception) -> tuple[Response, int]:
        message, status = str(error), 400
        if isinstance(error, RequestEntityTooLarge):
            status = 413
            message = (
                f'The file is larger than {limits.max_upload_mb:g} MB (the server was started '
                'with this --max-upload-mb).'
            )
        elif isinstance(error, SessionGone):
            status = 403
        elif isinstance(error, HTTPException):
            message, status = error.description, error.code
        elif not isinstance(error, ValueError):
            _log.exception('A request failed.')
            message, status = f'The server failed: {type(error).__name__}: {error}', 500
        return jsonify(error=message), status


def _host_name(host: str) -> str | None:
    """'127.0.0.1:7860' -> '127.0.0.1'; None where it is no host."""
    try:
        return urlsplit(f'//{host}').hostname
    except ValueError:
        return None
