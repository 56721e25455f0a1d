// The left column: reference pictures, the boxes on them, and the classes they make.

import { letDraw, letMove } from './drawing.js';
import { button, make, place, showPicture, thumbnail } from './pictures.js';
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

/** Prompts of the page; `onChange` is called whenever other things would be found. */
export class Prompts {
  constructor({ list, empty, nameInput, nameList, pictures, onChange }) {
    Object.assign(this, { list, empty, nameInput, nameList, pictures, onChange });
    this.references = []; // pictures with `drawn`: [{box, name, element}]
    this.distractors = new Set();
    this.revision = 0;
    nameInput.maxLength = settings.longest_class_name;
    this.show();
  }

  /** Class names: the bank's, then those of boxes in the order they were drawn. */
  get classes() {
    const names = this.references.flatMap((picture) => picture.drawn.map(({ name }) => name));
    return [...new Set([...settings.bank_classes, ...names])];
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
    return { references, distractors: [...this.distractors].filter((name) => known.has(name)) };
  }

  /** @returns {Map<string, {picture, box}[]>} class name -> boxes, as they are now */
  exemplars() {
    const found = new Map(this.classes.map((name) => [name, []]));
    for (const picture of this.references) {
      for (const { name, box } of picture.drawn) found.get(name).push({ picture, box });
    }
    return found;
  }

  addReference(picture) {
    picture.drawn = [];
    this.references.push(picture);
    showPicture(picture, this.pictures, () => {
      this.references = this.references.filter((other) => other !== picture);
      this.changed();
    });
    letDraw(picture, (box, byKeyboard) => {
      const name = this.nameInput.value.trim() || 'object';
      const drawn = { box, name, element: make('div', 'box') };
      drawn.element.style.setProperty('--colour', colourOf(name));
      drawn.element.append(make('span', 'label', name));
      drawn.element.setAttribute('role', 'group');
      place(drawn.element, box, picture);
      picture.drawn.push(drawn);
      picture.frame.append(drawn.element);
      letMove(
        drawn.element, drawn, picture, () => this.changed(), () => this.removeBox(picture, drawn),
      );
      if (byKeyboard) drawn.element.focus();
      this.changed();
    });
  }

  removeBox(picture, drawn) {
    drawn.element.remove();
    picture.drawn = picture.drawn.filter((other) => other !== drawn);
    this.changed();
  }

  changed() {
    this.revision += 1;
    this.show();
    this.onChange();
  }

  show() {
    const classes = this.classes;
    this.empty.hidden = classes.length > 0;
    this.nameList.replaceChildren(
      ...classes.map((name) => Object.assign(make('option'), { value: name })),
    );
    this.list.replaceChildren(...classes.map((name) => this.classItem(name)));
    for (const picture of this.references) {
      for (const { name, box, element } of picture.drawn) {
        element.classList.toggle('distractor', this.distractors.has(name));
        element.setAttribute(
          'aria-label', `${name}, ${box.join(', ')}; arrow keys move it, with Shift its corner`,
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
      this.changed();
      // the list was made anew
      this.list.querySelectorAll('.not input')[this.classes.indexOf(name)]?.focus();
    });
    not.prepend(box);
    item.append(choose, not);
    if (settings.bank_classes.includes(name)) item.append(make('span', 'hint', 'from the bank'));
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
