// The dashboard's entry: sign-in, two pages, one router on the address's fragment.
import { ApiError, dropToken, setToken, takeToken } from './api.js';
import { el } from './dom.js';
import { jobPage } from './job.js';
import { jobsPage } from './jobs.js';

const root = document.getElementById('page');
const crumbs = document.getElementById('crumbs');
const connection = document.getElementById('connection');
let current = null;

function signIn(why) {
  const input = el('input', { type: 'password', size: 66, autocomplete: 'off', 'aria-label': 'Token', required: true, pattern: '[0-9a-f]{64}' });
  root.replaceChildren(el('form', { class: 'card', onsubmit: (event) => { event.preventDefault(); setToken(input.value.trim()); route(); } },
    el('h1', {}, 'Sign in'), el('p', { class: why ? 'notice error' : 'muted' }, why || 'The token is in the file STATE/token of the daemon.'),
    el('div', { class: 'row' }, input, el('button', {}, 'Open'))));
  input.focus();
}

function fail(error) {
  if (error instanceof ApiError && error.status === 401) {
    dropToken();
    signIn('The daemon refused this token.');
    return;
  }
  root.replaceChildren(el('p', { class: 'notice error', role: 'alert' }, error.message));
}

async function route() {
  const token = takeToken();
  current?.abort();
  current = new AbortController();
  connection.textContent = '';
  if (!token) { signIn(''); return; }
  const job = /^#\/jobs\/([0-9a-f]{16})$/.exec(location.hash);
  crumbs.replaceChildren(job ? el('a', { href: '#/' }, 'jobs') : '');
  const { signal } = current;
  try {
    if (job) await jobPage(root, job[1], signal, (text) => { if (!signal.aborted) connection.textContent = text; }, fail);
    else await jobsPage(root, signal);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

window.addEventListener('hashchange', route);
window.addEventListener('DOMContentLoaded', route);
