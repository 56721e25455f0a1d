// Tuning the prompts on the pictures that are complete: its start, its progress, what came of it.

import { ask } from './server.js';

const PAUSE = 500; // ms between two questions how far it is
const plural = (count, one, many = `${one}s`) => (count === 1 ? `one ${one}` : `${count} ${many}`);

/** The part of the page that improves; `onDone(status)` is called with what the server says. */
export class Improve {
  constructor({ start, stop, bar, text, prompts, onDone }) {
    Object.assign(this, { start, stop, bar, text, prompts, onDone });
    this.job = null; // what is running
    start.addEventListener('click', () => this.run());
    stop.addEventListener('click', () => this.cancel('Stopped.'));
    this.show();
  }

  show() {
    const { length } = this.prompts.complete;
    this.start.textContent = `Improve (${plural(length, 'picture')})`;
    this.start.disabled = this.job !== null || !length;
    this.bar.hidden = this.stop.hidden = this.job === null;
  }

  say(message, isError = false) {
    this.text.textContent = message;
    this.text.classList.toggle('error', isError);
  }

  async run() {
    const job = { began: performance.now() };
    this.job = job;
    this.bar.removeAttribute('value');
    this.show();
    this.say('Starting …');
    try {
      const { complete } = this.prompts;
      const boxes = complete.reduce((sum, { drawn }) => sum + drawn.length, 0);
      const request = { ...this.prompts.request(), complete: complete.map(({ id }) => id) };
      await ask('POST', 'api/improve', request);
      const status = await this.end(job);
      if (this.job !== job) return; // cancelled
      if (status.state !== 'done') throw new Error(status.message);
      this.say(outcome(status, boxes));
      await this.onDone(status);
    } catch (error) {
      if (this.job === job) this.say(error.message, true);
    } finally {
      if (this.job === job) this.job = null;
      this.show();
    }
  }

  /** Ask until it has ended, and say how far it is. */
  async end(job) {
    for (;;) {
      const status = await (await ask('POST', 'api/improve/status')).json();
      const { state, done, all } = status;
      if (this.job !== job || !['waiting', 'running'].includes(state)) return status;
      if (state === 'waiting') {
        this.say('Waiting for the improvement of another page …');
      } else if (!done) {
        this.say('Reading the pictures …');
      } else {
        const left = ((performance.now() - job.began) / done) * (all - done) / 60000;
        this.bar.value = done / all;
        this.say(`Step ${done} of ${all}, ${plural(Math.ceil(left), 'minute')} to go`);
      }
      await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
    }
  }

  /** End what is running, and say why. */
  cancel(why) {
    if (!this.job) return;
    this.job = null;
    this.show();
    this.say(why);
    ask('POST', 'api/improve/cancel').catch(() => {}); // then the server ends it by itself
  }
}

/** What came of it, in words. */
function outcome({ steps, loss_before: before, loss_after: after, tuned }, boxes) {
  if (!tuned.length) {
    return 'Nothing was tuned: a class needs boxes on two or more pictures that are complete. Its '
      + `prompt is the mean of its boxes, ${plural(boxes, 'box', 'boxes')} of all classes.`;
  }
  if (!steps) {
    return 'The mean of the boxes was already as good, and is kept; '
      + `${plural(boxes, 'box is', 'boxes are')} part of it.`;
  }
  return `Improved in ${plural(steps, 'step')}: on pictures that were held out the loss was `
    + `${before.toFixed(3)} before, and is ${after.toFixed(3)}. Switch between before and after, beside the slider.`;
}
