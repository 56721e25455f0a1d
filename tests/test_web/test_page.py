"""The page in a browser: boxes are drawn with the mouse, and results read off its table."""

import base64
import json

import pytest

from mmdet_dino_r1 import load_prompt_bank
from mmdet_dino_r1.apis import Reference

pytest.importorskip('flask')
pytest.importorskip('selenium')

from opened_page import (  # noqa: E402
    CAT,
    DOG,
    NEEDS_BROWSER,
    Page,
    downloaded,
    expected_rows,
    serving,
)
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from mmdet_dino_r1.utils.fonts import package_fonts  # noqa: E402
from mmdet_dino_r1.web.shared_detector import LOWEST_SCORE, SharedDetector  # noqa: E402

LOADED = "return document.fonts.check('16px Names', arguments[0])"
pytestmark = NEEDS_BROWSER


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
    button = page.all('#detections .name')[-1]
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
        page.all('#detections .name')[0].click()
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
            page.all('#detections .name')[0].click()
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
