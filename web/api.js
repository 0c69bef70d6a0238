// The daemon's API: every call carries the token. The token comes once in the address's fragment
// (#token=...), which browsers do not send, and stays in this tab's session storage.

const KEY = 'hebb-token';

export class ApiError extends Error {
  constructor(status, problem) {
    const faults = (problem.errors || []).map((e) => `${e.field}: ${e.reason}`);
    super([problem.detail || problem.title || `status ${status}`, ...faults].join('; '));
    this.status = status;
  }
}

export function takeToken() {
  const match = /^#token=([0-9a-f]{64})/.exec(location.hash);
  if (match) {
    sessionStorage.setItem(KEY, match[1]);
    history.replaceState(null, '', '#/');
  }
  return sessionStorage.getItem(KEY);
}

export const setToken = (token) => sessionStorage.setItem(KEY, token);
export const dropToken = () => sessionStorage.removeItem(KEY);

function send(path, options = {}) {
  return fetch(path, {
    ...options,
    cache: 'no-store',
    headers: { ...options.headers, Authorization: `Bearer ${sessionStorage.getItem(KEY) || ''}` },
  });
}

async function checked(response) {
  if (response.ok) return response;
  let problem = {};
  try { problem = await response.json(); } catch { /* not problem+json: the status says it */ }
  throw new ApiError(response.status, problem);
}

export const get = async (path) => (await checked(await send(path))).json();
export const getText = async (path) => (await checked(await send(path))).text();
export const post = async (path) => (await checked(await send(path, { method: 'POST' }))).json();

// Server-sent events through fetch, since EventSource can't carry a token. Calls onEvent({id, type,
// data}) for each and onState('live' | 'waiting' | 'ended') on changes; reconnects with Last-Event-ID
// until `signal` aborts or more() says that nothing can come any more.
export async function stream(path, lastId, { onEvent, onState, more, signal }) {
  let id = lastId;
  let wait = 500;
  while (!signal.aborted) {
    try {
      const response = await checked(await send(path, {
        signal, headers: { Accept: 'text/event-stream', ...(id ? { 'Last-Event-ID': String(id) } : {}) },
      }));
      onState('live');
      wait = 500;
      for await (const event of parse(response.body)) {
        if (event.id) id = event.id;
        onEvent(event);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error;
    }
    if (!more()) { onState('ended'); return; }
    onState('waiting');
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    wait = Math.min(wait * 2, 10000);
  }
}

async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf('\n\n')) >= 0) {
      const event = { id: null, type: 'message', data: '' };
      for (const line of text.slice(0, end).split('\n')) {
        const [, field, content] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === 'id') event.id = content;
        else if (field === 'event') event.type = content;
        else if (field === 'data') event.data += content;
      }
      text = text.slice(end + 2);
      if (event.data) yield event;
    }
  }
}
