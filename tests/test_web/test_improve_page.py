"""Correcting what was found, and improving the prompts, in a browser."""

import pytest

from mmdet_dino_r1 import load_prompt_bank
from mmdet_dino_r1.apis import Reference

pytest.importorskip('flask')
pytest.importorskip('selenium')

from opened_page import CAT, DOG, NEEDS_BROWSER, downloaded, expected_rows  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = NEEDS_BROWSER


def drag(page, element, right, down):
    """Drag an element so many pixels of the picture."""
    scale = page.all('#reference-pictures .frame')[0].size['width'] / 80
    actions = ActionChains(page.browser, duration=20)
    actions.drag_and_drop_by_offset(element, round(right * scale), round(down * scale)).perform()


def test_what_was_found_is_corrected(page, photos):
    page.choose('reference', photos / '0.png')
    page.choose('target', photos / '1.png')
    assert not page.all('.correct')  # nothing was searched yet
    page.draw(CAT)
    page.slide(0.05)
    page.press('detect')
    rows = page.table()
    page.all('.correct')[0].click()
    page.idle()
    first = len(page.boxes()) - 1
    assert page.status().startswith(f'{first} of the detections in 1.png became boxes on the left')
    assert 0 < first <= len(rows) and len(page.all('#reference-pictures .frame')) == 2
    page.all('.correct')[0].click()  # what has a box keeps it
    page.idle()
    assert len(page.boxes()) == first + 1 and len(page.all('#reference-pictures .frame')) == 2
    # a picture that is shown twice stays on the server until both cards are gone
    page.all('#reference-pictures figcaption .quiet')[1].click()
    assert page.boxes() == [CAT]
    page.press('detect')
    assert page.status() == 'Searched one picture.' and page.table() == rows


def test_a_box_is_moved_resized_renamed_and_deleted(page, photos):
    page.choose('reference', photos / '0.png')
    page.draw(CAT)
    drag(page, page.one('#reference-pictures .label'), 5, -4)
    assert page.boxes() == [[13, 8, 45, 40]]
    drag(page, page.one('#reference-pictures .label'), 60, 0)  # as far as the picture goes
    assert page.boxes() == [[48, 8, 80, 40]]
    drag(page, page.one('#reference-pictures .corner'), -10, 6)
    assert page.boxes() == [[48, 8, 70, 46]]
    for rename in (
        page.one('#reference-pictures .label').click,
        lambda: page.one('#reference-pictures .box').send_keys(Keys.ENTER),
    ):
        rename()
        asked = page.browser.switch_to.alert
        name = 'dog' if asked.text == 'The class of this box:' else ''
        asked.send_keys(name)
        asked.accept()
        assert page.one('#prompts .name').text == 'dog'
    assert page.boxes() == [[48, 8, 70, 46]]
    page.one('#reference-pictures .remove').click()
    assert page.boxes() == []


def test_a_detection_is_said_to_be_something_else(page, photos):
    page.choose('reference', photos / '0.png')
    page.choose('target', photos / '1.png')
    page.draw(CAT)
    page.slide(0.05)
    page.press('detect')
    wrong = page.all('#detections .quiet')[0]
    wrong.click()
    page.idle()
    assert page.status() == '“not object” only competes from now on: press Detect.'
    names = [one.text for one in page.all('#prompts .name')]
    ticked = [one.is_selected() for one in page.all('#prompts .not input')]
    assert list(zip(names, ticked, strict=True)) == [('object', False), ('not object', True)]
    wrong.click()
    page.idle()
    assert '1.png has a box there on the left' in page.status()
    page.press('detect')
    assert {row[0] for row in page.table()} <= {'object'}


def test_improving(page, photos, inferencer, downloads, tmp_path, tuned_for):
    same = [tmp_path / f'{k}.png' for k in range(3)]  # what is learnt on two helps with the third
    for path in same:
        path.write_bytes((photos / '0.png').read_bytes())
    page.choose('reference', *same)
    page.choose('target', photos / '1.png')
    for k in range(3):
        page.draw(CAT, k)
    page.slide(0.05)
    start = page.one('#improve')
    assert start.text == 'Improve (0 pictures)' and not start.is_enabled()
    for tick in page.all('.tick input'):
        tick.click()
    assert start.text == 'Improve (3 pictures)' and not page.all('#choice, #improve-bar')
    start.click()
    assert page.all('#improve-bar') and page.all('#stop') and not start.is_enabled()
    page.wait(lambda: page.all('#choice') and page.one('#after').is_selected())
    page.idle()
    assert page.one('#improve-status').text.startswith('Improved in ')
    assert start.is_enabled() and not page.all('#improve-bar, #stop')

    after = page.table()
    page.all('#detections td .name')[0].click()
    assert page.one('#winner p').text.endswith('The prompt that won: the mean of 3 boxes, improved')
    page.press('save-bank')
    bank = load_prompt_bank(downloaded(downloads, 'bank.safetensors'))
    assert bank.provenance['tuning']['steps'] > 0
    assert bank.exemplars.file_names == ('0.png', '1.png', '2.png')
    inferencer.set_prompts(bank=bank)
    (found,) = inferencer(str(photos / '1.png'), score_thr=0.05)['predictions']
    assert after == [('object', f'{score:.3f}', '1.png') for score in found['scores']]

    page.one('#before').click()
    references = [Reference(path, [CAT], 'object') for path in same]
    before = expected_rows(inferencer, [photos / '1.png'], 0.05, references)
    assert page.table() == before != after
    page.one('#after').click()
    assert page.table() == after

    page.draw(DOG)  # other boxes: what was tuned is no longer theirs
    assert not page.all('#choice') and len(page.all('.stale')) == 1
    tuned_for(2000)
    start.click()
    page.draw(DOG, 1)
    assert page.one('#improve-status').text == 'The boxes have changed: stopped.'
    assert start.is_enabled() and not page.all('#improve-bar')
