"""The page in a browser: boxes are drawn with the mouse, and results read off its table."""

import base64
import json
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from mmdet_dino_r1 import load_prompt_bank
from mmdet_dino_r1.apis import Reference

pytest.importorskip('flask')
webdriver = pytest.importorskip('selenium.webdriver')

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

from mmdet_dino_r1.utils.fonts import package_fonts  # noqa: E402
from mmdet_dino_r1.web.server import Limits, create_app  # noqa: E402
from mmdet_dino_r1.web.shared_detector import LOWEST_SCORE, SharedDetector  # noqa: E402

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
CHROMEDRIVER = shutil.which('chromedriver')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason='needs Chromium and its driver'),
]

CAT, DOG = [8, 12, 40, 44], [44, 10, 72, 50]
WIDTH = 80  # of the pictures, in pixels
LOADED = "return document.fonts.check('16px Names', arguments[0])"
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


@pytest.fixture(scope='module')
def address(inferencer):
    with serving(SharedDetector(inferencer)) as address:
        yield address


@pytest.fixture(scope='module')
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp('downloads')


@pytest.fixture(scope='module')
def browser(tmp_path_factory, downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp('profile')
    for flag in (*FLAGS.split(), f'--user-data-dir={profile}'):
        options.add_argument(flag)
    options.add_experimental_option('prefs', {'download.default_directory': str(downloads)})
    options.set_capability('goog:loggingPrefs', dict(browser='ALL'))
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


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


@pytest.fixture
def page(browser, address):
    page = Page(browser, address)
    yield page
    complaints = [entry['message'] for entry in browser.get_log('browser')]
    # a refused upload is logged by the browser itself
    assert not [text for text in complaints if 'status of 400' not in text]


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
        if (folder / name).exists():
            return folder / name
        time.sleep(0.05)
    raise AssertionError(f'{name} was not downloaded')


def test_from_a_box_to_the_files(page, photos, inferencer, downloads):
    targets = [photos / '1.png', photos / '2.png']
    page.choose('reference', photos / '0.png')
    page.choose('target', *targets)
    page.name_class('cat')
    page.draw(CAT)
    page.name_class('dog')
    page.draw(DOG[2:] + DOG[:2])  # from the lower right corner to the upper left
    assert page.boxes() == [CAT, DOG]
    page.slide(0.05)
    page.press('detect')
    assert page.status().startswith('Searched 2 pictures.')
    references = [Reference(photos / '0.png', [CAT, DOG], ['cat', 'dog'])]
    rows = expected_rows(inferencer, targets, 0.05, references)
    assert len(rows) == 40 and {row[0] for row in rows} == {'cat', 'dog'}
    assert page.table() == rows
    assert len(page.all('.found')) == 40

    # the slider asks the server for nothing
    threshold = float(sorted(row[1] for row in rows)[-12])
    page.browser.execute_script('performance.clearResourceTimings()')
    page.slide(round(threshold, 2))
    rows = expected_rows(inferencer, targets, round(threshold, 2), references)
    assert 0 < len(rows) < 40 and page.table() == rows
    assert page.one('#count').text.startswith(f'{len(rows)} detections: ')
    asked = "performance.getEntriesByType('resource').filter(({name}) => name.includes('api'))"
    assert page.browser.execute_script(f'return {asked}.length') == 0

    # which prompt won
    button = page.all('#detections tbody button')[-1]
    name, score, picture = rows[-1]
    button.click()
    why = f'{name} {score} in {picture}. The prompt that won: one box'
    assert page.one('#winner p').text == why
    assert len(page.all('#winner canvas')) == 2

    page.press('save-json')
    coco = json.loads(downloaded(downloads, 'detections.json').read_text())
    names = {category['id']: category['name'] for category in coco['categories']}
    files = {image['id']: image['file_name'] for image in coco['images']}
    assert rows == [
        (names[one['category_id']], f'{one["score"]:.3f}', files[one['image_id']])
        for one in coco['annotations']
    ]
    page.press('save-bank')
    bank = load_prompt_bank(downloaded(downloads, 'bank.safetensors'))
    assert bank.class_names == ('cat', 'dog') and bank.exemplars.boxes.tolist() == [CAT, DOG]


def test_a_broken_file_is_told_of_and_the_page_works_on(page, photos, encode, tmp_path):
    broken, large = tmp_path / 'broken.png', tmp_path / 'large.png'
    broken.write_bytes(encode(0)[:3000])
    large.write_bytes(encode(0, (101, 10)))
    page.choose('target', broken, photos / '1.png', large)
    assert 'broken.png is damaged' in page.status()
    assert 'large.png is 101 x 10 pixels' in page.status()
    assert 'error' in page.one('#status').get_attribute('class')
    assert [figure.text.split('\n')[0] for figure in page.all('#target-pictures figure')] == [
        '1.png'
    ]
    page.press('detect')
    assert 'draw a box' in page.status()
    page.choose('reference', photos / '0.png')
    page.draw(CAT)
    page.slide(0.05)
    page.press('detect')
    assert len(page.table()) == 10 and page.status() == 'Searched one picture.'
    best = page.table()[0][1]
    page.slide(0.95)
    assert page.table() == []
    assert page.one('#count').text == 'Nothing scores 0.95 or more; the best is object with ' + best


def test_deleting_and_not_this(page, photos, inferencer):
    page.choose('reference', photos / '0.png')
    page.choose('target', photos / '1.png')
    for name, box in (('cat', CAT), ('<b>dog</b>', DOG), ('cat', DOG)):
        page.name_class(name)
        page.draw(box)
    assert page.boxes() == [CAT, DOG, DOG]  # class by class
    page.all('#prompts .delete')[1].click()
    assert page.boxes() == [CAT, DOG]
    page.slide(0.05)
    page.press('detect')
    assert {row[0] for row in page.table()} == {'cat', '<b>dog</b>'}
    page.all('#prompts .not input')[1].click()
    assert page.status() == 'The prompts have changed: press Detect.'
    assert len(page.all('#target-pictures .stale')) == 1
    page.press('detect')
    inferencer.set_prompts(
        [Reference(photos / '0.png', [CAT, DOG], ['cat', 'dog'])], distractors=['dog']
    )
    (found,) = inferencer(str(photos / '1.png'), score_thr=LOWEST_SCORE)['predictions']
    assert page.table() == [('cat', f'{score:.3f}', '1.png') for score in found['scores']]
    page.all('#reference-pictures .quiet')[0].click()
    assert page.boxes() == [] and page.one('#no-prompts').is_displayed()
    page.all('#target-pictures .quiet')[0].click()
    assert page.table() == [] and not page.all('#results')


def test_the_keyboard_suffices(page, photos):
    page.choose('reference', photos / '0.png')
    frame = page.one('#reference-pictures .frame')
    frame.send_keys(Keys.ENTER)
    assert page.boxes() == [[24, 18, 56, 42]]
    box = page.browser.switch_to.active_element
    box.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert page.boxes() == [[22, 17, 54, 41]]
    ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).perform()
    ActionChains(page.browser).key_up(Keys.SHIFT).perform()
    assert page.boxes() == [[22, 17, 55, 41]]
    box.send_keys(Keys.DELETE)
    assert page.boxes() == []
    assert page.browser.switch_to.active_element == frame


def test_a_finger_draws_too(page, photos):
    page.choose('reference', photos / '0.png')
    frame = page.one('#reference-pictures .frame')
    area = page.browser.execute_script(
        'const {x, y, width} = arguments[0].getBoundingClientRect(); return [x, y, width / 80]',
        frame,
    )
    x, y, scale = area
    corners = [dict(x=x + scale * CAT[i], y=y + scale * CAT[i + 1]) for i in (0, 2)]
    for type_, points in (
        ('touchStart', corners[:1]),
        ('touchMove', corners[1:]),
        ('touchEnd', []),
    ):
        page.browser.execute_cdp_cmd(
            'Input.dispatchTouchEvent', dict(type=type_, touchPoints=points)
        )
    assert page.boxes() == [CAT]


def test_a_page_that_was_forgotten_says_so(page, photos, address):
    page.browser.execute_script(
        "document.querySelector('meta[name=page-token]').content = 'of another server'"
    )
    page.one('#target-files').send_keys(str(photos / '1.png'))
    page.idle()
    assert 'reload the page' in page.status()
    page.browser.get_log('browser')  # the refusal
    page = Page(page.browser, address)
    page.choose('target', photos / '1.png')
    assert page.status() == ''


def test_files_can_be_dropped(page, photos):
    """A made-up drop: browsers let no program drag files from a desktop."""
    drop = """
        const [zone, name, text] = arguments;
        const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
        const files = new DataTransfer();
        files.items.add(new File([bytes], name));
        const options = { dataTransfer: files, bubbles: true, cancelable: true };
        return document.getElementById(zone).dispatchEvent(new DragEvent('drop', options));
    """
    for zone in ('reference', 'target'):
        text = base64.b64encode((photos / '2.png').read_bytes()).decode()
        # false: the browser is kept from opening the file in place of the page
        assert page.browser.execute_script(drop, f'{zone}-drop', f'{zone}.png', text) is False
        page.idle()
        assert page.one(f'#{zone}-pictures .name').text == f'{zone}.png'


def test_a_bank_to_start_with(browser, photos, inferencer):
    bank = inferencer.set_prompts([Reference(photos / '0.png', [CAT], ['cat'])])
    with serving(SharedDetector(inferencer, bank)) as address:
        page = Page(browser, address)
        assert page.one('#prompts li').text.splitlines()[0] == 'cat'
        assert 'from the bank' in page.one('#prompts li').text
        page.choose('target', photos / '1.png')
        page.press('detect')
        inferencer.set_prompts(bank=bank)
        (found,) = inferencer(str(photos / '1.png'), score_thr=0.3)['predictions']
        assert [row[1] for row in page.table()] == [f'{score:.3f}' for score in found['scores']]
        page.all('#detections tbody button')[0].click()
        assert page.one('#winner p').text.endswith('The prompt that won: from the bank')


@pytest.mark.skipif(not package_fonts(), reason='needs the package with the font')
def test_boxes_that_made_a_prompt_together(browser, photos, joint_inferencer):
    with serving(SharedDetector(joint_inferencer)) as address:
        page = Page(browser, address)
        page.choose('reference', photos / '0.png', photos / '1.png')
        page.choose('target', photos / '2.png')
        page.name_class('cat')
        page.slide(0.05)
        for reference, box, made_of in (
            (0, CAT, 'one box'),
            (0, DOG, '2 boxes together'),
            (1, CAT, 'the mean of 2 pictures, 3 boxes in all'),
        ):
            page.draw(box, reference)
            page.press('detect')
            page.all('#detections tbody button')[0].click()
            assert page.one('#winner p').text.endswith(f'The prompt that won: {made_of}')
        assert len(page.all('#winner canvas')) == 1 + 3


def test_names_in_chinese_japanese_and_korean_are_readable(page):
    """Where the system has no font for them, all are the same empty square."""
    pictures = set()
    for name in '螺丝ね나':
        page.name_class(name)
        page.wait(lambda name=name: page.browser.execute_script(LOADED, name))
        pictures.add(page.one('#class-name').screenshot_as_base64)
    assert len(pictures) == 4
