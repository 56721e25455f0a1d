// The page: brings its parts together.

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
});

const prompts = new Prompts({
  list: $('prompts'),
  empty: $('no-prompts'),
  nameInput: $('class-name'),
  nameList: $('class-names'),
  pictures: $('reference-pictures'),
  onChange: () => {
    results.markStale(prompts.revision);
    const stale = results.targets.some(({ revision }) => revision !== null);
    if (!busy) say(stale ? 'The prompts have changed: press Detect.' : '');
  },
});

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
  const { revision } = prompts;
  const [request, exemplars] = [prompts.request(), prompts.exemplars()];
  const waiting = results.targets.filter((target) => target.revision !== revision);
  for (const [index, target] of waiting.entries()) {
    if (!results.targets.includes(target)) continue; // removed meanwhile
    say(`Searching ${target.name}, ${index + 1} of ${waiting.length} …`);
    const response = await ask('POST', 'api/detect', { ...request, picture: target.id });
    const answer = await response.json();
    if (results.targets.includes(target)) results.show(target, answer, revision, exemplars);
  }
  const found = results.filter();
  results.markStale(prompts.revision);
  if (prompts.revision !== revision) return 'The prompts have changed meanwhile: press Detect.';
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
  const request = { ...prompts.request(), threshold: results.threshold };
  await save(await ask('POST', 'api/coco', request), 'detections.json');
}));
$('save-bank').addEventListener('click', () => working('Encoding the boxes …', async () => {
  await save(await ask('POST', 'api/bank', prompts.request()), 'bank.safetensors');
}));

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
