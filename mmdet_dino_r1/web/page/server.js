// Requests to the server. Every one carries the page's token; every error comes back in words.

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;

export const settings = JSON.parse(meta('page-settings'));

/**
 * Ask the server; throws an Error whose message can be shown.
 * @param {string} method of HTTP
 * @param {string} path 'api/…'
 * @param {Blob|object} body a file as it is, anything else as JSON
 * @returns {Promise<Response>}
 */
export async function ask(method, path, body = {}) {
  const isFile = body instanceof Blob;
  let response;
  try {
    response = await fetch(path, {
      method,
      body: isFile ? body : JSON.stringify(body),
      headers: {
        'X-Page-Token': meta('page-token'),
        'Content-Type': isFile ? 'application/octet-stream' : 'application/json',
      },
    });
  } catch {
    throw new Error('The server does not answer; is it still running?');
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new Error(answer?.error ?? `The server answered with status ${response.status}.`);
}

/** Let the browser save a response as a file. */
export async function save(response, fileName) {
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement('a');
  link.href = url;
  link.download = fileName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000); // the download has begun by then
}
