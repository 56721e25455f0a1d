// Drawing and changing boxes: with mouse, pen or finger (pointer events), or with the keyboard.

import { make, place } from './pictures.js';

const SMALLEST_ON_SCREEN = 5; // CSS pixels; less is a click
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Where a pointer is, in whole pixels of a picture. */
function pixelAt(event, picture) {
  const area = picture.frame.getBoundingClientRect();
  const clamp = (share, most) => Math.round(Math.min(Math.max(share, 0), 1) * most);
  return [
    clamp((event.clientX - area.left) / area.width, picture.width),
    clamp((event.clientY - area.top) / area.height, picture.height),
  ];
}

/**
 * Follow a pointer from where it is pressed on an element.
 * @param element on, or in, the frame of a picture
 * @param {function(number[])} begin gets the pixel, and gives what to do: `move(pixel)`,
 *   `end(pixel, [right, down])` with the way on the screen, and `cancel()`
 */
function letDrag(element, picture, begin) {
  let drag = null;
  element.addEventListener('pointerdown', (event) => {
    // a second finger does nothing; a button in the element is pressed
    if (drag || event.button !== 0 || event.target.closest('button')) return;
    event.stopPropagation(); // what lies on the frame moves, and the frame does not draw
    drag = {
      ...begin(pixelAt(event, picture)),
      pointer: event.pointerId,
      screen: [event.clientX, event.clientY],
    };
    element.setPointerCapture(event.pointerId);
  });
  const follow = (type, act) => element.addEventListener(type, (event) => {
    if (event.pointerId === drag?.pointer) act(event);
  });
  const stop = (act) => (event) => {
    const { screen: [x, y], ...done } = drag;
    drag = null;
    act(done, pixelAt(event, picture), [event.clientX - x, event.clientY - y]);
  };
  follow('pointermove', (event) => drag.move(pixelAt(event, picture)));
  follow('pointerup', stop((done, pixel, way) => done.end(pixel, way)));
  follow('pointercancel', stop((done) => done.cancel()));
}

/**
 * Let boxes be drawn on a picture.
 * @param picture shown already
 * @param {function(number[], boolean)} onBox gets the box in whole pixels of the picture, and
 *   whether it was made with the keyboard
 */
export function letDraw(picture, onBox) {
  const { frame } = picture;
  letDrag(frame, picture, (start) => {
    const outline = make('div', 'box drawing');
    frame.append(outline);
    const boxTo = (end) => [
      ...start.map((side, axis) => Math.min(side, end[axis])),
      ...start.map((side, axis) => Math.max(side, end[axis])),
    ];
    const move = (pixel) => place(outline, boxTo(pixel), picture);
    move(start);
    return {
      move,
      end: (pixel, way) => {
        outline.remove();
        const box = boxTo(pixel);
        const drawn = Math.min(...way.map(Math.abs)) >= SMALLEST_ON_SCREEN;
        if (drawn && box[2] > box[0] && box[3] > box[1]) onBox(box, false);
      },
      cancel: () => outline.remove(),
    };
  });

  frame.tabIndex = 0;
  frame.setAttribute('role', 'group');
  frame.setAttribute(
    'aria-label',
    `${picture.name}: drag to draw a box, or press Enter to add one in the middle`,
  );
  frame.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.target !== frame) return;
    const [width, height] = [picture.width, picture.height];
    onBox([0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height].map(Math.round), true);
  });
}

/** A box that has gone so far right and down, within its picture; or its lower right corner has. */
function shifted([x1, y1, x2, y2], [right, down], cornerOnly, { width, height }) {
  const clamp = (way, least, most) => Math.min(Math.max(way, least), most);
  const dx = clamp(right, cornerOnly ? x1 + 1 - x2 : -x1, width - x2);
  const dy = clamp(down, cornerOnly ? y1 + 1 - y2 : -y1, height - y2);
  return cornerOnly ? [x1, y1, x2 + dx, y2 + dy] : [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}

/**
 * Let a drawn box be changed. Its label moves it and, clicked, renames it; its corner resizes it.
 * With the keyboard: arrows, with Shift for the corner, Enter and Delete.
 * @param drawn {box, element, label, corner}; its box is replaced
 * @param picture that it lies on
 */
export function letChange(drawn, picture, { onMove, onRename, onDelete }) {
  const { element } = drawn;
  for (const handle of [drawn.label, drawn.corner]) {
    letDrag(handle, picture, (start) => {
      const { box } = drawn;
      const put = (now) => {
        drawn.box = now;
        place(element, now, picture);
      };
      const move = (pixel) => {
        const way = pixel.map((side, axis) => side - start[axis]);
        put(shifted(box, way, handle === drawn.corner, picture));
      };
      element.focus();
      return {
        move,
        end: (pixel, way) => {
          if (Math.max(...way.map(Math.abs)) >= SMALLEST_ON_SCREEN) {
            move(pixel);
            onMove();
          } else {
            put(box);
            if (handle === drawn.label) onRename();
          }
        },
        cancel: () => put(box),
      };
    });
  }

  element.tabIndex = 0;
  element.addEventListener('keydown', (event) => {
    if (event.target !== element) return; // the button in its label
    if (event.key === 'Enter') onRename();
    if (event.key === 'Delete' || event.key === 'Backspace') {
      event.preventDefault();
      onDelete();
      picture.frame.focus();
    }
    if (!(event.key in ARROWS)) return;
    event.preventDefault(); // the page does not scroll
    const step = Math.max(1, Math.round(0.01 * picture.width));
    const way = ARROWS[event.key].map((direction) => direction * step);
    drawn.box = shifted(drawn.box, way, event.shiftKey, picture);
    place(element, drawn.box, picture);
    onMove();
  });
}
