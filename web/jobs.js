// The list of jobs.
import { get } from './api.js';
import { duration, el, number, table, when } from './dom.js';

const STATES = ['queued', 'starting', 'running', 'pausing', 'paused', 'retry_wait', 'cancelling', 'succeeded', 'failed', 'cancelled'];
const POLL_MS = 2000;

export const stateBadge = (state) => el('span', { class: `state ${state}` }, state.replace('_', ' '));

const COLUMNS = [
  { title: 'Name', cell: (j) => el('a', { href: `#/jobs/${j.id}` }, j.name) },
  { title: 'Job', cell: (j) => el('code', {}, j.id) },
  { title: 'State', cell: (j) => el('span', { title: j.reason || undefined }, stateBadge(j.state)) },
  { title: 'Progress', cell: (j) => {
    const p = j.progress || {};
    return el('span', {}, el('progress', { max: p.steps || 1, value: p.step || 0, 'aria-label': `progress of ${j.name}` }),
      p.steps ? ` ${number(p.step)} / ${number(p.steps)}` : '');
  } },
  { title: 'Loss', num: true, cell: (j) => number(j.progress?.loss) },
  { title: 'Tokens/s', num: true, cell: (j) => number(j.progress?.tokens_per_s) },
  { title: 'Left', num: true, cell: (j) => (j.state === 'running' ? duration(j.progress?.eta_s) : '') },
  { title: 'Submitted', cell: (j) => when(j.created) },
];

export function jobsPage(root, signal) {
  const name = el('input', { type: 'search', placeholder: 'name', 'aria-label': 'Filter by name' });
  const state = el('select', { 'aria-label': 'Filter by state' }, el('option', { value: '' }, 'all states'),
    STATES.map((s) => el('option', { value: s }, s.replace('_', ' '))));
  const body = el('div', {});
  const more = el('button', { hidden: true, onclick: () => { limit += 50; load(); } }, 'Show more');
  let limit = 50;
  root.replaceChildren(el('div', { class: 'row spread' }, el('h1', {}, 'Jobs'), el('div', { class: 'row' }, name, state)),
    el('div', { class: 'card' }, body, more));

  async function load() {
    const query = new URLSearchParams({ limit: String(Math.min(limit, 500)) });
    if (name.value) query.set('name', name.value);
    if (state.value) query.set('state', state.value);
    const answer = await get(`/v1/jobs?${query}`);
    if (signal.aborted) return;
    more.hidden = !answer.next_after || limit >= 500;
    body.replaceChildren(answer.jobs.length ? table(COLUMNS, answer.jobs)
      : el('p', { class: 'muted' }, 'No job here. Submit one with ', el('code', {}, 'hebb submit JOB.json'), ' or curl; docs/api.md shows how.'));
  }
  name.addEventListener('input', load);
  state.addEventListener('change', load);
  const timer = setInterval(() => { if (!document.hidden) load().catch(() => {}); }, POLL_MS);
  signal.addEventListener('abort', () => clearInterval(timer));
  return load();
}
