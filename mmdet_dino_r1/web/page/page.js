// The page: brings its parts together.

import { Improve } from './improve.js';
import { onFiles, upload } from './pictures.js';
import { Prompts } from './prompts.js';
import { Results } from './results.js';
import { ask, save, settings } from './server.js';

const $ = (id) => document.getElementById(id);
let busy = 0;

function say(message, isError = false) {
  $('status').textContent = message;
  $('status').classList.toggle('error', isError);
}

/** Do something that takes time; what goes wrong is said. */
async function working(message, work) {
  say(message);
  busy += 1;
  showBusy();
  try {
    say((await work()) ?? '');
  } catch (error) {
    say(error.message, true);
  } finally {
    busy -= 1;
    showBusy();
  }
}

function showBusy() {
  document.body.setAttribute('aria-busy', busy > 0);
  for (const id of ['detect', 'save-json', 'save-bank']) $(id).disabled = busy > 0;
}

const results = new Results({
  pictures: $('target-pictures'),
  section: $('results'),
  title: $('count'),
  body: document.querySelector('#detections tbody'),
  winner: $('winner'),
  onCorrect: (target, found) => working('', async () => {
    const added = await prompts.correct(target, found);
    return `${added} of the detections in ${target.name} became boxes on the left: put them right `
      + 'there, and draw what was missed.';
  }),
  onNotThis: (found) => working('', async () => {
    const name = await prompts.notThis(found);
    return `“${name}” only competes from now on: press Detect.`;
  }),
});

const prompts = new Prompts({
  list: $('prompts'),
  empty: $('no-prompts'),
  nameInput: $('class-name'),
  nameList: $('class-names'),
  pictures: $('reference-pictures'),
  onChange: (boxes) => {
    results.forget();
    results.markStale(prompts.key);
    const stale = results.targets.some(({ key }) => key !== null);
    if (!busy) say(stale ? 'The prompts have changed: press Detect.' : '');
    if (boxes) improve.cancel('The boxes have changed: stopped.');
    showChoice();
    improve.show();
  },
  onTick: () => improve.show(),
});

const improve = new Improve({
  start: $('improve'),
  stop: $('stop'),
  bar: $('improve-bar'),
  text: $('improve-status'),
  prompts,
  onDone: (status) => {
    if (status.steps) prompts.improved = status;
    showChoice();
    if (!results.targets.length) return choose(status.steps > 0);
    return working('', async () => {
      await detect(); // what is found without, to compare
      if (!status.steps) return '';
      choose(true);
      return detect();
    });
  },
});

/** Before or after: which prompts are in force; both only while the boxes are the same. */
function showChoice() {
  $('choice').hidden = !prompts.improved;
  $(prompts.useImproved ? 'after' : 'before').checked = true;
}

function choose(useImproved) {
  prompts.useImproved = useImproved && prompts.improved !== null;
  showChoice();
  results.recall(prompts.key);
  if (results.targets.some(({ key }) => key !== prompts.key)) say('Press Detect to see it.');
}

/** Send files one by one; those that are refused do not keep the others back. */
async function addAll(files, add) {
  const refused = [];
  for (const file of files) {
    try {
      add(await upload(file));
    } catch (error) {
      refused.push(error.message);
    }
  }
  if (refused.length) throw new Error(refused.join(' '));
}

async function detect() {
  if (!results.targets.length) throw new Error('Add a picture to search first.');
  const { key } = prompts;
  const [request, origins] = [prompts.request(), prompts.origins()];
  const waiting = results.targets.filter((target) => target.key !== key);
  for (const [index, target] of waiting.entries()) {
    if (!results.targets.includes(target)) continue; // removed meanwhile
    say(`Searching ${target.name}, ${index + 1} of ${waiting.length} …`);
    const response = await ask('POST', 'api/detect', { ...request, picture: target.id });
    const answer = await response.json();
    if (results.targets.includes(target)) results.show(target, answer, key, origins);
  }
  const found = results.filter();
  results.markStale(prompts.key);
  if (prompts.key !== key) return 'The prompts have changed meanwhile: press Detect.';
  const pictures = results.targets.length === 1 ? 'one picture' : `${results.targets.length} pictures`;
  return `Searched ${pictures}. ${found ? '' : results.nothing()}`;
}

onFiles($('reference-drop'), (files) => working('Adding …', () => (
  addAll(files, (picture) => prompts.addReference(picture))
)));
onFiles($('target-drop'), (files) => working('Adding …', () => (
  addAll(files, (picture) => results.addTarget(picture))
)));
for (const type of ['dragover', 'drop']) {
  // a file dropped beside the fields would replace the page
  window.addEventListener(type, (event) => event.preventDefault());
}

$('detect').addEventListener('click', () => working('', detect));
$('save-json').addEventListener('click', () => working('', async () => {
  const pictures = results.targets.map(({ id }) => id);
  const request = { ...prompts.request(), pictures, threshold: results.threshold };
  await save(await ask('POST', 'api/coco', request), 'detections.json');
}));
$('save-bank').addEventListener('click', () => working('Encoding the boxes …', async () => {
  await save(await ask('POST', 'api/bank', prompts.request()), 'bank.safetensors');
}));

for (const id of ['before', 'after']) $(id).addEventListener('change', () => choose(id === 'after'));

const slider = $('threshold');
function setThreshold() {
  results.threshold = Number(slider.value);
  $('threshold-value').textContent = results.threshold.toFixed(2);
  results.filter();
}
slider.min = settings.lowest_score;
slider.addEventListener('input', setThreshold);
setThreshold();
showBusy();
