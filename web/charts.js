// Curves on uPlot. Every chart has a text summary for screen readers and a table of its data.
import { el, number, table } from './dom.js';

const COLOURS = ['#2f7fd0', '#d9662b', '#2f9e62', '#9b59c6', '#c7a31d', '#d14c78', '#3aa6a6', '#7a6a58'];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const TABLE_ROWS = 12;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A chart of several series over steps.
//   title, unit; series: [{label, dash?}]; log: logarithmic y axis
// set(columns): columns[0] the steps, then one array a series (null: no value there).
export function chart({ title, unit = '', series, log = false }) {
  const box = el('div', { class: 'plot', role: 'img', 'aria-label': `${title}: no data yet` });
  const details = el('details', {}, el('summary', {}, 'Table'));
  const node = el('section', { class: 'card' }, el('h2', {}, title), box, details);
  let plot = null;
  let columns = [[]];

  const axis = () => ({ stroke: css('--muted'), grid: { stroke: css('--line'), width: 1 }, ticks: { stroke: css('--line') } });
  function build() {
    plot?.destroy();
    plot = new window.uPlot({
      width: Math.max(box.clientWidth, 200), height: 230,
      scales: { x: { time: false }, y: log ? { distr: 3 } : {} },
      axes: [{ ...axis(), label: 'step', labelSize: 18 }, { ...axis(), size: 64, values: (_, v) => v.map((x) => (x === null ? '' : number(x, 2))) }],
      cursor: { points: { size: 6 } },
      series: [{ label: 'step' }, ...series.map((s, i) => ({
        label: s.label, stroke: COLOURS[i % COLOURS.length], width: s.points ? 2 : 1.4, spanGaps: true,
        dash: DASHES[Math.floor(i / COLOURS.length) % DASHES.length].concat(s.dash || []),
        points: s.points ? { show: true, size: 6 } : { show: false }, value: (_, v) => (v === null ? '–' : number(v)),
      }))],
    }, columns, box);
  }
  function describe() {
    const parts = series.map((s, i) => {
      const values = (columns[i + 1] || []).filter((v) => v !== null && v !== undefined);
      return values.length ? `${s.label} from ${number(values[0])} to ${number(values[values.length - 1])}` : `${s.label} without data`;
    });
    const steps = columns[0];
    box.setAttribute('aria-label', `${title}${unit ? ` (${unit})` : ''}, steps ${steps[0] ?? 0} to ${steps[steps.length - 1] ?? 0}: ${parts.join('; ')}`);
    if (!details.open) return;
    const every = Math.max(1, Math.ceil(steps.length / TABLE_ROWS));
    const picked = steps.map((_, i) => i).filter((i) => i % every === 0 || i === steps.length - 1);
    details.replaceChildren(details.firstChild, table([{ title: 'Step', num: true, cell: (i) => String(steps[i]) },
      ...series.map((s, k) => ({ title: s.label, num: true, cell: (i) => number(columns[k + 1][i]) }))], picked));
  }
  details.addEventListener('toggle', describe);
  const watcher = new ResizeObserver(() => plot?.setSize({ width: Math.max(box.clientWidth, 200), height: 230 }));
  watcher.observe(box);
  return {
    node,
    set(next) {
      columns = next;
      if (!plot) build(); else plot.setData(columns);
      describe();
    },
    destroy() { watcher.disconnect(); plot?.destroy(); },
  };
}

// Joins series with their own steps on one axis: [{steps, values}, ...] -> columns for set().
export function join(parts) {
  const steps = [...new Set(parts.flatMap((p) => p.steps))].sort((a, b) => a - b);
  return [steps, ...parts.map((p) => {
    const at = new Map(p.steps.map((s, i) => [s, p.values[i]]));
    return steps.map((s) => at.get(s) ?? null);
  })];
}
