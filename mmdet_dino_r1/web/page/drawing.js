// Drawing boxes: with mouse, pen or finger (pointer events), or with the keyboard.

import { make, place } from './pictures.js';

const SMALLEST_ON_SCREEN = 5; // CSS pixels; less is a click, not a box
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Let boxes be drawn on a picture.
 * @param picture shown already
 * @param {function(number[], boolean)} onBox gets the box in whole pixels of the picture, and
 *   whether it was made with the keyboard
 */
export function letDraw(picture, onBox) {
  const { frame } = picture;
  let start = null;
  let outline = null;

  const pixelAt = (event) => {
    const area = frame.getBoundingClientRect();
    const clamp = (share, most) => Math.round(Math.min(Math.max(share, 0), 1) * most);
    return [
      clamp((event.clientX - area.left) / area.width, picture.width),
      clamp((event.clientY - area.top) / area.height, picture.height),
    ];
  };
  const boxTo = ([x, y]) => [
    Math.min(start.x, x), Math.min(start.y, y), Math.max(start.x, x), Math.max(start.y, y),
  ];
  const stop = () => {
    outline?.remove();
    start = outline = null;
  };

  frame.addEventListener('pointerdown', (event) => {
    if (start || event.button !== 0) return; // a second finger draws nothing
    const [x, y] = pixelAt(event);
    start = { x, y, pointer: event.pointerId, screen: [event.clientX, event.clientY] };
    frame.setPointerCapture(event.pointerId);
    outline = make('div', 'box drawing');
    frame.append(outline);
    place(outline, [x, y, x, y], picture);
  });
  frame.addEventListener('pointermove', (event) => {
    if (event.pointerId === start?.pointer) place(outline, boxTo(pixelAt(event)), picture);
  });
  frame.addEventListener('pointerup', (event) => {
    if (event.pointerId !== start?.pointer) return;
    const box = boxTo(pixelAt(event));
    const [x, y] = start.screen;
    const moved = Math.min(Math.abs(event.clientX - x), Math.abs(event.clientY - y));
    stop();
    if (moved >= SMALLEST_ON_SCREEN && box[2] > box[0] && box[3] > box[1]) onBox(box, false);
  });
  frame.addEventListener('pointercancel', stop);

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

/**
 * Let the arrow keys move a focused box; with Shift they move its lower right corner.
 * @param element of the box
 * @param {{box: number[]}} drawn changed in place
 * @param picture that it lies on
 * @param {function()} onMove
 * @param {function()} onDelete
 */
export function letMove(element, drawn, picture, onMove, onDelete) {
  element.tabIndex = 0;
  element.addEventListener('keydown', (event) => {
    if (event.key === 'Delete' || event.key === 'Backspace') {
      event.preventDefault();
      onDelete();
      picture.frame.focus();
    }
    if (!(event.key in ARROWS)) return;
    event.preventDefault(); // the page does not scroll
    const step = Math.max(1, Math.round(0.01 * picture.width));
    const [dx, dy] = ARROWS[event.key].map((direction) => direction * step);
    const [x1, y1, x2, y2] = drawn.box;
    const moved = event.shiftKey
      ? [x1, y1, x2 + dx, y2 + dy]
      : [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
    const inside = moved[0] >= 0 && moved[1] >= 0
      && moved[2] <= picture.width && moved[3] <= picture.height;
    if (!inside || moved[2] <= moved[0] || moved[3] <= moved[1]) return;
    drawn.box = moved;
    place(element, moved, picture);
    onMove();
  });
}
