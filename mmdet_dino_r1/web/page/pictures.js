// Pictures on the page: taking files, showing them, boxes on top of them.
//
// A picture is {id, name, width, height, url, image, card, frame}; boxes are [x1, y1, x2, y2] in its
// pixels, as the server reads it. On screen they are placed in percent, so they follow any size.

import { ask, settings } from './server.js';

/** Make an element; text is never taken for HTML. */
export function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

export function button(className, text, label, onClick) {
  const element = make('button', className, text);
  element.type = 'button';
  if (label) element.setAttribute('aria-label', label);
  element.addEventListener('click', onClick);
  return element;
}

/** Call `take(files)` for files chosen with, or dropped on, a `label.drop`. */
export function onFiles(drop, take) {
  const input = drop.querySelector('input');
  input.addEventListener('change', () => {
    take([...input.files]);
    input.value = ''; // the same file can be chosen again
  });
  for (const type of ['dragenter', 'dragover', 'dragleave', 'drop']) {
    drop.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', type === 'dragenter' || type === 'dragover');
      if (type === 'drop') take([...event.dataTransfer.files]);
    });
  }
}

/** Send a file; returns the picture, without a card. Throws an Error to show. */
export async function upload(file) {
  if (file.size > settings.max_upload_mb * 1e6) {
    // the server would say so, too, but only after it was sent
    throw new Error(`${file.name} is larger than ${settings.max_upload_mb} MB (--max-upload-mb).`);
  }
  const response = await ask('POST', `api/pictures?name=${encodeURIComponent(file.name)}`, file);
  return withImage({ ...await response.json(), url: URL.createObjectURL(file) });
}

/** The same picture of the server, to be shown once more. */
export function copyOf({ id, name, width, height, url }) {
  return withImage({ id, name, width, height, url });
}

async function withImage(picture) {
  const { url: src, name: alt } = picture;
  picture.image = Object.assign(make('img'), { src, alt, draggable: false });
  await picture.image.decode().catch(() => {}); // thumbnails are cut from it
  return picture;
}

const cards = new Map(); // picture id -> how often it is shown

/** Put a picture into a list, with its name and a button that removes it. */
export function showPicture(picture, list, onRemove) {
  cards.set(picture.id, (cards.get(picture.id) ?? 0) + 1);
  picture.card = make('figure', 'picture');
  picture.frame = make('div', 'frame');
  picture.frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
  picture.frame.style.setProperty('--ratio', picture.width / picture.height);
  picture.frame.append(picture.image);
  const caption = make('figcaption');
  caption.append(
    make('span', 'name', picture.name),
    make('span', 'hint', `${picture.width} × ${picture.height}`),
    button('quiet', 'Remove', `Remove ${picture.name}`, () => {
      picture.card.remove();
      cards.set(picture.id, cards.get(picture.id) - 1);
      if (!cards.get(picture.id)) {
        URL.revokeObjectURL(picture.url);
        ask('DELETE', `api/pictures/${picture.id}`).catch(() => {}); // then it is gone anyway
      }
      onRemove(picture);
    }),
  );
  picture.card.append(picture.frame, caption);
  list.append(picture.card);
}

/** Lay an element over a box of a picture. */
export function place(element, [x1, y1, x2, y2], picture) {
  element.style.left = `${(100 * x1) / picture.width}%`;
  element.style.top = `${(100 * y1) / picture.height}%`;
  element.style.width = `${(100 * (x2 - x1)) / picture.width}%`;
  element.style.height = `${(100 * (y2 - y1)) / picture.height}%`;
  // where the label has no room above the box, it goes below or, if need be, inside
  const [atTop, atBottom] = [y1 < 0.08 * picture.height, y2 > 0.92 * picture.height];
  element.classList.toggle('label-below', atTop && !atBottom);
  element.classList.toggle('label-inside', atTop && atBottom);
  element.classList.toggle('label-right', x1 > 0.7 * picture.width);
}

/** What a box shows, as a small canvas. */
export function thumbnail(picture, [x1, y1, x2, y2], side = 56) {
  const canvas = make('canvas', 'thumbnail');
  const scale = side / Math.max(x2 - x1, y2 - y1);
  const sharp = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round((x2 - x1) * scale * sharp));
  canvas.height = Math.max(1, Math.round((y2 - y1) * scale * sharp));
  canvas.style.width = `${canvas.width / sharp}px`;
  const fit = picture.image.naturalWidth / picture.width; // 1, unless the browser disagrees
  canvas.getContext('2d').drawImage(
    picture.image,
    x1 * fit, y1 * fit, (x2 - x1) * fit, (y2 - y1) * fit,
    0, 0, canvas.width, canvas.height,
  );
  return canvas;
}
