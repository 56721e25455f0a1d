"""The web page in a browser, as a user sees it; needs Flask and Selenium."""

import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from werkzeug.serving import make_server

from mmdet_dino_r1.web.server import Limits, create_app
from mmdet_dino_r1.web.shared_detector import LOWEST_SCORE

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
CHROMEDRIVER = shutil.which('chromedriver')
NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason='needs Chromium and its driver'),
]

CAT, DOG = [8, 12, 40, 44], [44, 10, 72, 50]
WIDTH = 80  # of the pictures, in pixels
FLAGS = (
    '--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run '
    '--disable-background-networking --disable-component-update --disable-sync '
    '--window-size=1300,1000'
)


@contextmanager
def serving(detector):
    """The address of a server in another thread."""
    app = create_app(detector, Limits(max_side=100))
    server = make_server('127.0.0.1', 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.port}/'
    server.shutdown()


class Page:
    """The open page, as a user sees it."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.idle()  # its scripts have run

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        found = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return [element for element in found if element.is_displayed()]

    def wait(self, condition, seconds=30):
        return WebDriverWait(self.browser, seconds, 0.05).until(lambda _: condition())

    def idle(self):
        busy = "return document.body?.getAttribute('aria-busy')"
        self.wait(lambda: self.browser.execute_script(busy) == 'false')

    def choose(self, kind, *files):
        self.one(f'#{kind}-files').send_keys('\n'.join(map(str, files)))
        self.idle()

    def press(self, name):
        self.one(f'#{name}').click()
        self.idle()

    def name_class(self, name):
        field = self.one('#class-name')
        field.clear()
        field.send_keys(name)

    def draw(self, box, reference=0):
        """Drag over a box of a reference, given in its pixels."""
        frame = self.all('#reference-pictures .frame')[reference]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
        scale = frame.size['width'] / WIDTH
        middle = [frame.size['width'] / 2, frame.size['height'] / 2]
        at = [round(side * scale - middle[index % 2]) for index, side in enumerate(box)]
        actions = ActionChains(self.browser, duration=20)
        actions.move_to_element_with_offset(frame, *at[:2]).click_and_hold()
        actions.move_to_element_with_offset(frame, *at[2:]).release().perform()

    def boxes(self):
        """Boxes in the list of classes, in pixels."""
        shown = self.all('#prompts .exemplar')
        return [[int(side) for side in one.get_attribute('data-box').split(',')] for one in shown]

    def table(self):
        """Class, score and picture of the rows that are shown."""
        rows = self.browser.execute_script(
            "return [...document.querySelectorAll('#detections tbody tr:not([hidden])')]"
            '.map(row => [...row.cells].map(cell => cell.textContent))'
        )
        return [tuple(row[:3]) for row in rows]

    def slide(self, threshold):
        """Move the slider with the keyboard."""
        slider = self.one('#threshold')
        steps = round((threshold - float(slider.get_attribute('value'))) * 100)
        slider.send_keys((Keys.ARROW_RIGHT if steps > 0 else Keys.ARROW_LEFT) * abs(steps))
        assert float(slider.get_attribute('value')) == pytest.approx(threshold)

    def status(self):
        return self.one('#status').text


def expected_rows(inferencer, paths, threshold, references):
    """What the table must show: class, score and picture."""
    inferencer.set_prompts(references)
    predictions = inferencer(list(map(str, paths)), score_thr=LOWEST_SCORE)['predictions']
    return [
        (name, f'{score:.3f}', Path(found['image']).name)
        for found in predictions
        for name, score in zip(found['class_names'], found['scores'], strict=True)
        if score >= threshold
    ]


def downloaded(folder, name):
    """A file, once the browser has written it whole."""
    for _ in range(200):
        if (folder / name).exists() and (folder / name).stat().st_size:  # it begins empty
            return folder / name
        time.sleep(0.05)
    raise AssertionError(f'{name} was not downloaded')
