// The right column: target pictures, what was found in them, and the prompt that found it.

import { button, make, place, showPicture, thumbnail } from './pictures.js';
import { colourOf } from './prompts.js';
import { settings } from './server.js';

/** What a prompt is made of, in words; its boxes are {picture, box}. */
function promptOf({ boxes, improved }) {
  return improved ? `${meanOf(boxes)}, improved` : meanOf(boxes);
}

function meanOf(boxes) {
  const count = boxes.length;
  if (!count) return 'from the bank';
  if (count === 1) return 'one box';
  if (!settings.encoded_jointly) return `the mean of ${count} boxes`;
  const pictures = new Set(boxes.map(({ picture }) => picture)).size;
  if (pictures === 1) return `${count} boxes together`;
  return `the mean of ${pictures} pictures, ${count} boxes in all`;
}

/** Detections of the page. Those below the threshold are hidden, not asked for again. */
export class Results {
  /** `onCorrect(target)` and `onNotThis(detection)` are called for what is wrong. */
  constructor({ pictures, section, title, body, winner, onCorrect, onNotThis }) {
    Object.assign(this, { pictures, section, title, body, winner, onCorrect, onNotThis });
    // pictures with `key`, of the prompts, `found`: [{box, …, row}] with them, and `answers`, what
    // can be shown again, by key
    this.targets = [];
    this.threshold = 0;
    this.explainNone();
  }

  addTarget(picture) {
    Object.assign(picture, { found: [], key: null, answers: new Map() });
    this.targets.push(picture);
    showPicture(picture, this.pictures, () => {
      this.clear(picture);
      this.targets = this.targets.filter((other) => other !== picture);
      this.filter();
    });
    picture.correct = button('correct', 'Correct', `Correct what was found in ${picture.name}`, () => (
      this.onCorrect(picture, picture.found.filter(({ element }) => !element.hidden))
    ));
    picture.correct.title = 'Make boxes of these detections, and put them right';
    picture.correct.hidden = true;
    picture.card.querySelector('.quiet').before(picture.correct);
  }

  clear(target) {
    for (const { element, row } of target.found) {
      element.remove();
      row.remove();
    }
    if (this.explained?.target === target) this.explainNone();
    target.found = [];
  }

  /**
   * Show what was found in a target.
   * @param answer of the server: bboxes, scores, class_names, best first
   * @param {string} key of the prompts
   * @param {Map} origins of those prompts
   */
  show(target, answer, key, origins) {
    this.clear(target);
    target.key = key;
    target.answers.set(key, [answer, key, origins]);
    target.card.classList.remove('stale');
    target.correct.hidden = false;
    target.found = answer.bboxes.map((box, index) => {
      const name = answer.class_names[index];
      const one = { target, box, name, score: answer.scores[index], of: origins.get(name) };
      const shown = `${name} ${one.score.toFixed(3)}`;
      one.element = button('box found', '', `${shown} in ${target.name}`, () => this.explain(one));
      one.element.append(make('span', 'label', `${name} ${one.score.toFixed(2)}`));
      place(one.element, box, target);
      one.row = this.rowOf(one);
      for (const element of [one.element, one.row]) {
        element.style.setProperty('--colour', colourOf(name));
        element.addEventListener('pointermove', (event) => {
          // a page that scrolls under a resting pointer points at nothing
          if (event.movementX || event.movementY) this.explain(one);
        });
        element.addEventListener('focusin', () => this.explain(one));
      }
      return one;
    });
    // small boxes lie on top, where they can be pointed at
    const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    const largestFirst = [...target.found].sort((a, b) => area(b) - area(a));
    target.frame.append(...largestFirst.map(({ element }) => element));
    this.body.append(...target.found.map(({ row }) => row));
    this.filter();
  }

  rowOf(one) {
    const row = make('tr');
    const name = make('td');
    name.append(button('name', one.name, '', () => {
      this.explain(one);
      one.target.card.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
    }));
    row.append(
      name,
      make('td', 'score', one.score.toFixed(3)),
      make('td', 'picture-name', one.target.name),
      make('td', 'numbers', one.box.map((side) => side.toFixed(1)).join(', ')),
    );
    const not = make('td');
    not.append(button('quiet', 'not this', `${one.name} in ${one.target.name} is not this`, () => (
      this.onNotThis(one)
    )));
    row.append(not);
    return row;
  }

  /** Hide what scores less than the threshold, and count the rest. */
  filter() {
    const counts = new Map();
    for (const { found } of this.targets) {
      for (const { name, score, element, row } of found) {
        const hidden = score < this.threshold;
        element.hidden = row.hidden = hidden;
        if (!hidden) counts.set(name, (counts.get(name) ?? 0) + 1);
      }
    }
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    const each = [...counts].map(([name, count]) => `${name} ${count}`).join(', ');
    const searched = this.targets.some(({ key }) => key !== null);
    this.section.hidden = this.winner.hidden = !searched;
    this.title.textContent = total
      ? `${total} ${total === 1 ? 'detection' : 'detections'}: ${each}`
      : this.nothing();
    if (this.explained?.score < this.threshold) this.explainNone();
    return total;
  }

  /** Why the list is empty. */
  nothing() {
    const all = this.targets.flatMap(({ found }) => found);
    if (!all.length) return 'Nothing was found';
    const best = all.reduce((one, other) => (other.score > one.score ? other : one));
    return `Nothing scores ${this.threshold.toFixed(2)} or more; `
      + `the best is ${best.name} with ${best.score.toFixed(3)}`;
  }

  /** Grey out what was found with other prompts. */
  markStale(key) {
    for (const target of this.targets) {
      target.card.classList.toggle('stale', target.key !== null && target.key !== key);
    }
  }

  /** Show again what was found with some prompts. */
  recall(key) {
    for (const target of this.targets) {
      if (target.answers.has(key)) this.show(target, ...target.answers.get(key));
    }
    this.filter();
    this.markStale(key);
  }

  /** Other prompts: what was found with earlier ones is not shown again. */
  forget() {
    for (const { answers } of this.targets) answers.clear();
  }

  /**
   * Show which prompt a detection is due to. The panel keeps its size whatever it shows: were the
   * table to move under the pointer, a click would hit another row.
   */
  explain(one) {
    if (this.explained === one) return;
    this.explainNone();
    this.explained = one;
    one.element.classList.add('chosen');
    one.row.classList.add('chosen');
    const { boxes } = one.of;
    const text = make('p');
    text.append(
      make('b', 'name', one.name),
      ` ${one.score.toFixed(3)} in ${one.target.name}. The prompt that won: ${promptOf(one.of)}`,
    );
    text.style.setProperty('--colour', colourOf(one.name));
    const shown = make('div', 'boxes');
    shown.append(thumbnail(one.target, one.box));
    if (boxes.length) shown.append(make('span', 'because', '←'));
    shown.append(...boxes.slice(0, 20).map(({ picture, box }) => thumbnail(picture, box)));
    this.winner.replaceChildren(shown, text);
  }

  explainNone() {
    for (const element of [this.explained?.element, this.explained?.row]) {
      element?.classList.remove('chosen');
    }
    this.explained = null;
    this.winner.replaceChildren(make('p', 'hint', 'Point at a detection to see which prompt won.'));
  }
}
