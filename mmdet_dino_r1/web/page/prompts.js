// The left column: reference pictures, the boxes on them, and the classes they make.

import { letChange, letDraw } from './drawing.js';
import { button, copyOf, make, place, showPicture, thumbnail } from './pictures.js';
import { settings } from './server.js';

// Dark enough for white text on them.
const COLOURS = [
  '#c2185b', '#1565c0', '#2e7d32', '#b54708', '#6a1b9a', '#00727a', '#7a4f01', '#455a64',
];
const colours = new Map(); // class name -> colour, kept when its boxes go

/** @returns {string} of a class, the same all the time */
export function colourOf(name) {
  if (!colours.has(name)) colours.set(name, COLOURS[colours.size % COLOURS.length]);
  return colours.get(name);
}

/** Intersection over union of two boxes. */
function overlap(one, other) {
  const area = ([x1, y1, x2, y2]) => Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
  const shared = area([0, 1, 2, 3].map((i) => Math[i < 2 ? 'max' : 'min'](one[i], other[i])));
  return shared / (area(one) + area(other) - shared);
}

/** A box in whole pixels of a picture, at least one wide and high. */
function wholePixels(box, { width, height }) {
  const clamp = (side, least, most) => Math.min(Math.max(Math.round(side), least), most);
  const [x1, y1] = [clamp(box[0], 0, width - 1), clamp(box[1], 0, height - 1)];
  return [x1, y1, clamp(box[2], x1 + 1, width), clamp(box[3], y1 + 1, height)];
}

/**
 * Prompts of the page; `onChange` is called whenever other things would be found, and `onTick`
 * when a picture is said to be complete, or not to be.
 */
export class Prompts {
  constructor({ list, empty, nameInput, nameList, pictures, onChange, onTick }) {
    Object.assign(this, { list, empty, nameInput, nameList, pictures, onChange, onTick });
    // pictures with `drawn`: [{box, name, element, label, corner}], and `tick`
    this.references = [];
    this.distractors = new Set();
    this.revision = 0;
    this.improved = null; // what the server said of the tuning, while the boxes are the same
    this.useImproved = false;
    nameInput.maxLength = settings.longest_class_name;
    this.show();
  }

  /** Class names: the bank's, then those of boxes in the order they were drawn. */
  get classes() {
    const names = this.references.flatMap((picture) => picture.drawn.map(({ name }) => name));
    return [...new Set([...settings.bank_classes, ...names])];
  }

  /** Says which prompts are in force. */
  get key() {
    return `${this.revision}${this.useImproved ? ' improved' : ''}`;
  }

  /** Pictures in which all objects are said to have their box. */
  get complete() {
    return this.references.filter(({ drawn, tick }) => drawn.length && tick.checked);
  }

  /** What the server is told. */
  request() {
    const references = this.references
      .filter((picture) => picture.drawn.length)
      .map(({ id, drawn }) => ({
        picture: id,
        boxes: drawn.map(({ box }) => box),
        classes: drawn.map(({ name }) => name),
      }));
    const known = new Set(this.classes);
    const distractors = [...this.distractors].filter((name) => known.has(name));
    return { references, distractors, tuned: this.useImproved };
  }

  /** @returns {Map<string, {boxes, improved}>} what each class's prompt is made of now */
  origins() {
    const bank = new Set(settings.bank_classes); // its rows are no means of boxes
    const boxes = this.references.flatMap(
      (picture) => picture.drawn.map(({ name, box }) => ({ picture, name, box })),
    );
    return new Map(this.classes.map((name) => [name, {
      boxes: bank.has(name) ? [] : boxes.filter((other) => other.name === name),
      improved: this.useImproved && this.improved.tuned.includes(name),
    }]));
  }

  addReference(picture) {
    picture.drawn = [];
    this.references.push(picture);
    showPicture(picture, this.pictures, () => {
      this.references = this.references.filter((other) => other !== picture);
      this.changed(picture.drawn.length > 0);
    });
    picture.tick = Object.assign(make('input'), { type: 'checkbox' });
    picture.tick.addEventListener('change', () => this.onTick());
    const complete = make('label', 'tick', ' Every object of these classes has its box');
    complete.prepend(picture.tick);
    picture.card.append(complete);
    letDraw(picture, (box, byKeyboard) => {
      const drawn = this.addBox(picture, box, this.nameInput.value.trim() || 'object');
      if (byKeyboard) drawn.element.focus();
      this.changed();
    });
    this.show();
  }

  /** The reference that shows the same as a searched picture; added where there is none. */
  async referenceOf(target) {
    const found = () => this.references.find(({ id }) => id === target.id);
    if (!found()) {
      const copy = await copyOf(target);
      if (!found()) this.addReference(copy);
    }
    return found();
  }

  /**
   * Make boxes of what was found in a picture, to be corrected; an object that has one keeps it.
   * @param detections [{box, name}]
   * @returns {Promise<number>} boxes added
   */
  async correct(target, detections) {
    const picture = await this.referenceOf(target);
    const before = picture.drawn.length;
    for (const { box: found, name } of detections) {
      const box = wholePixels(found, picture);
      const known = picture.drawn.some((drawn) => overlap(drawn.box, box) > 0.5);
      if (!known) this.addBox(picture, box, name);
    }
    this.changed(picture.drawn.length > before);
    picture.card.scrollIntoView({ block: 'nearest' });
    return picture.drawn.length - before;
  }

  /** What a wrong detection shows becomes a box of a class that only competes. */
  async notThis({ target, box, name }) {
    const other = `not ${name}`.slice(0, settings.longest_class_name);
    this.distractors.add(other);
    const added = await this.correct(target, [{ box, name: other }]);
    if (!added) throw new Error(`${target.name} has a box there on the left: delete or rename it.`);
    return other;
  }

  addBox(picture, box, name) {
    const drawn = {
      box, name, element: make('div', 'box'), label: make('span', 'label', name),
      corner: make('span', 'corner'),
    };
    drawn.label.append(
      button('remove', '×', 'Delete this box', () => this.removeBox(picture, drawn)),
    );
    drawn.label.title = 'Drag to move the box, click to rename it';
    drawn.element.append(drawn.label, drawn.corner);
    drawn.element.setAttribute('role', 'group');
    place(drawn.element, box, picture);
    picture.drawn.push(drawn);
    picture.frame.append(drawn.element);
    letChange(drawn, picture, {
      onMove: () => this.changed(),
      onRename: () => this.rename(drawn),
      onDelete: () => this.removeBox(picture, drawn),
    });
    return drawn;
  }

  rename(drawn) {
    const answer = window.prompt('The class of this box:', drawn.name)?.trim();
    if (!answer || answer === drawn.name) return;
    drawn.name = answer.slice(0, settings.longest_class_name);
    this.changed();
  }

  removeBox(picture, drawn) {
    drawn.element.remove();
    picture.drawn = picture.drawn.filter((other) => other !== drawn);
    this.changed();
  }

  /** @param {boolean} boxes are others; else the choice of distractors is */
  changed(boxes = true) {
    this.revision += 1;
    if (boxes) {
      this.improved = null;
      this.useImproved = false;
    }
    this.show();
    this.onChange(boxes);
  }

  show() {
    const classes = this.classes;
    this.empty.hidden = classes.length > 0;
    this.nameList.replaceChildren(
      ...classes.map((name) => Object.assign(make('option'), { value: name })),
    );
    this.list.replaceChildren(...classes.map((name) => this.classItem(name)));
    for (const picture of this.references) {
      picture.tick.disabled = !picture.drawn.length;
      for (const { name, box, element, label } of picture.drawn) {
        label.firstChild.data = name;
        element.style.setProperty('--colour', colourOf(name));
        element.classList.toggle('distractor', this.distractors.has(name));
        element.setAttribute(
          'aria-label',
          `${name}, ${box.join(', ')}; arrow keys move it, with Shift its corner; Enter renames it`,
        );
      }
    }
  }

  /** A class: its name, the choice "not this", and its boxes. */
  classItem(name) {
    const item = make('li');
    item.style.setProperty('--colour', colourOf(name));
    const choose = button('name', name, `Draw boxes of ${name}`, () => {
      this.nameInput.value = name;
    });
    const not = make('label', 'not', ' not this');
    not.title = 'Only competes: what looks more like it is left out';
    const box = Object.assign(make('input'), {
      type: 'checkbox',
      checked: this.distractors.has(name),
    });
    box.setAttribute('aria-label', `Not this: ${name}`);
    box.addEventListener('change', () => {
      this.distractors[box.checked ? 'add' : 'delete'](name);
      this.changed(false);
      // the list was made anew
      this.list.querySelectorAll('.not input')[this.classes.indexOf(name)]?.focus();
    });
    not.prepend(box);
    item.append(choose, not);
    if (settings.bank_classes.includes(name)) {
      item.append(make('span', 'hint', 'from the bank; boxes count where you improve it'));
    }
    const boxes = make('div', 'boxes');
    for (const picture of this.references) {
      for (const drawn of picture.drawn.filter((other) => other.name === name)) {
        const shown = make('span', 'exemplar');
        shown.title = `${picture.name}: ${drawn.box.join(', ')}`;
        shown.dataset.box = drawn.box.join(',');
        const label = `Delete the box ${drawn.box.join(', ')} of ${name}`;
        const remove = button('delete', '×', label, () => this.removeBox(picture, drawn));
        shown.append(thumbnail(picture, drawn.box), remove);
        boxes.append(shown);
      }
    }
    item.append(boxes);
    return item;
  }
}
