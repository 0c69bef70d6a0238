// One job: its state, curves and topology, live.
import { get, getText, post, stream } from './api.js';
import { duration, el, number, percent, table, when } from './dom.js';
import { chart, join } from './charts.js';
import { stateBadge } from './jobs.js';
import { topologyView } from './topology.js';

const POINTS = 1500;
const DRAW_MS = 250;
const ACTIONS = [
  { name: 'pause', states: ['queued', 'starting', 'running', 'retry_wait'] }, { name: 'resume', states: ['paused', 'retry_wait'] },
  { name: 'checkpoint', states: ['starting', 'running'] },
  { name: 'cancel', states: ['queued', 'starting', 'running', 'pausing', 'paused', 'retry_wait'], danger: true },
];
const CONNECTION = { live: '● live', waiting: '○ reconnecting', ended: 'ended' };
const LEFT = { succeeded: 'done', failed: '–', cancelled: '–' };
const FINAL = ['succeeded', 'failed', 'cancelled'];

// Steps and evaluations as columns; a step that comes again (after a resume) replaces what was there.
class Series {
  constructor(answer) {
    this.steps = { step: answer.step || [], loss: answer.loss || [], lr: answer.lr || [], tokens_per_s: answer.tokens_per_s || [], grad_norm: answer.grad_norm || [] };
    this.evals = { step: answer.eval_step || [], loss: answer.eval_loss || [] };
  }

  static put(columns, row) {
    while (columns.step.length && columns.step[columns.step.length - 1] >= row.step) {
      for (const column of Object.values(columns)) column.pop();
    }
    for (const [key, column] of Object.entries(columns)) column.push(row[key] ?? null);
  }

  step(event) { Series.put(this.steps, event); }
  eval(event) { Series.put(this.evals, event); }
}

function header(job, act) {
  return el('div', { class: 'row spread' },
    el('div', {}, el('h1', {}, job.name, ' ', stateBadge(job.state)),
      el('p', { class: 'muted' }, el('code', {}, job.id), ` · attempt ${job.attempt} · submitted ${when(job.created)}`,
        job.reason ? ` · ${job.reason}` : '')),
    el('div', { class: 'row' }, ACTIONS.map((a) => el('button', {
      class: a.danger ? 'danger' : undefined, disabled: !a.states.includes(job.state), onclick: () => act(a.name),
    }, a.name))));
}

// The density before the first refresh, and that of a method without any.
const startDensity = (sparsity) => (sparsity.method === 'dense' ? 1 : sparsity.n / sparsity.m);

function tiles(job, series, topology) {
  const p = job.progress || {};
  const { steps, evals } = series;
  const last = (column) => column[column.length - 1];
  const evalLoss = last(evals.loss);
  const tile = (title, value) => el('div', { class: 'tile' }, el('b', {}, value), el('span', {}, title));
  return [
    tile('step', `${number(last(steps.step) ?? p.step ?? 0)} / ${number(job.spec.train.steps)}`),
    tile('training loss', number(last(steps.loss) ?? p.loss)),
    tile('validation perplexity', evalLoss === undefined ? '–' : number(Math.exp(evalLoss))),
    tile('tokens/s', number(last(steps.tokens_per_s) ?? p.tokens_per_s)),
    tile('left', LEFT[job.state] ?? duration(p.eta_s)),
    tile('density', percent(topology.density() ?? startDensity(job.spec.sparsity))),
  ];
}

export async function jobPage(root, id, signal, setConnection, fail) {
  const path = `/v1/jobs/${id}`;
  let job = await get(path);
  const [history, refreshes] = await Promise.all([
    get(`${path}/series?keys=loss,lr,tokens_per_s,grad_norm,eval_loss&points=${POINTS}`), get(`${path}/topology`)]);
  if (signal.aborted) return;
  const series = new Series(history);
  const topology = topologyView(refreshes.refreshes, job.spec.sparsity);
  const charts = [
    { view: chart({ title: 'Loss', series: [{ label: 'training' }, { label: 'validation', points: true }] }),
      columns: () => join([{ steps: series.steps.step, values: series.steps.loss }, { steps: series.evals.step, values: series.evals.loss }]) },
    { view: chart({ title: 'Learning rate', series: [{ label: 'lr' }] }), columns: () => [series.steps.step, series.steps.lr] },
    { view: chart({ title: 'Tokens per second', unit: 'all ranks', series: [{ label: 'tokens/s' }] }), columns: () => [series.steps.step, series.steps.tokens_per_s] },
    { view: chart({ title: 'Gradient norm', series: [{ label: 'before clipping' }] }), columns: () => [series.steps.step, series.steps.grad_norm] },
  ];
  const head = el('div', {});
  const numbers = el('div', { class: 'tiles', 'aria-live': 'off' });
  const log = el('pre', {}, '');
  const logBox = el('details', { class: 'card' }, el('summary', {}, 'Log of the last attempt'), log);
  const specBox = el('details', { class: 'card' }, el('summary', {}, 'Job, every default filled in'), el('pre', {}, JSON.stringify(job.spec, null, 2)));
  root.replaceChildren(head, numbers, el('div', { class: 'grid' }, charts.map((c) => c.view.node)), topology.node, specBox, logBox);

  const act = async (name) => {
    try { await post(`${path}/${name}`); await update(); } catch (error) { window.alert(error.message); }
  };
  let curvesDirty = true;
  let timer = null;
  function draw() {
    timer = null;
    if (signal.aborted) return;
    head.replaceChildren(header(job, act));
    numbers.replaceChildren(...tiles(job, series, topology));
    if (curvesDirty) charts.forEach((c) => c.view.set(c.columns()));
    curvesDirty = false;
    topology.draw();
  }
  const soon = () => { timer ??= setTimeout(draw, DRAW_MS); };
  async function update() {
    job = await get(path);
    soon();
  }
  logBox.addEventListener('toggle', async () => {
    if (!logBox.open) return;
    log.textContent = job.attempt ? await getText(`${path}/log?attempt=${job.attempt}&limit=65536`).catch((e) => e.message) : 'no attempt yet';
  });
  const poll = setInterval(() => { if (!FINAL.includes(job.state) && !document.hidden) update().catch(() => {}); }, 3000);
  signal.addEventListener('abort', () => {
    clearInterval(poll);
    clearTimeout(timer);
    charts.forEach((c) => c.view.destroy());
    topology.destroy();
  });
  draw();

  function onEvent(event) {
    const data = JSON.parse(event.data);
    if (event.type === 'step') { series.step(data); curvesDirty = true; }
    else if (event.type === 'eval') { series.eval(data); curvesDirty = true; }
    else if (event.type === 'refresh') topology.add(data);
    else if (event.type === 'state' || event.type === 'done') { update().catch(() => {}); return; }
    soon();
  }
  stream(`${path}/events`, job.last_seq, {
    onEvent, signal, more: () => !FINAL.includes(job.state), onState: (state) => setConnection(CONNECTION[state]),
  }).catch(fail);
}
