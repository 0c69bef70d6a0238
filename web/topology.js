// How the masks evolve: density, flip rate and explored share per layer over refreshes, and the last
// refresh of every matrix as a table.
import { chart } from './charts.js';
import { el, number, percent, table } from './dom.js';

const METRICS = [
  { key: 'density', title: 'Density per layer' },
  { key: 'flip_rate', title: 'Flip rate per layer', unit: 'new links / links' },
  { key: 'explored', title: 'Explored share per layer', unit: 'links ever active / possible links' },
];

const layerOf = (name) => Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? 0);

function patterns(counts) {
  if (!counts?.length) return '';
  const max = Math.max(...counts, 1);
  const bars = counts.map((count) => {
    const bar = el('i', {});
    bar.style.flex = '1';
    bar.style.height = `${Math.max(1, (12 * count) / max)}px`;
    bar.style.alignSelf = 'end';
    return bar;
  });
  return el('span', { class: 'patterns', role: 'img', 'aria-label': `groups per pattern: ${counts.join(', ')}`, title: counts.join(', ') }, bars);
}

const COLUMNS = [
  { title: 'Matrix', cell: (m) => el('code', {}, m.name.replace(/^model\.layers\./, '')) },
  { title: 'Density', num: true, cell: (m) => percent(m.density) },
  { title: 'Removed', num: true, cell: (m) => number(m.removed) },
  { title: 'Changed groups', num: true, cell: (m) => number(m.changed_groups) },
  { title: 'Flip rate', num: true, cell: (m) => percent(m.flip_rate) },
  { title: 'Explored', num: true, cell: (m) => percent(m.explored) },
  { title: 'Dead columns', num: true, cell: (m) => number(m.dead_columns) },
  { title: 'Patterns', cell: (m) => patterns(m.patterns) },
  { title: 'Mask hash', cell: (m) => el('code', {}, m.hash) },
];

// refreshes: [{refresh, step, zeta, layers: [...]}], ascending. sparsity: the job's section.
export function topologyView(refreshes, sparsity) {
  const list = [...refreshes];
  const node = el('section', {});
  let views = [];
  let layers = 0;
  let dirty = true;

  // Mean of a metric over the matrices of each layer.
  function perLayer(refresh, key) {
    const sums = Array.from({ length: layers }, () => [0, 0]);
    for (const m of refresh.layers) {
      const sum = sums[layerOf(m.name)];
      if (sum) { sum[0] += m[key]; sum[1] += 1; }
    }
    return sums.map(([sum, count]) => (count ? sum / count : null));
  }

  function build() {
    const series = Array.from({ length: layers }, (_, i) => ({ label: `layer ${i}` }));
    views = METRICS.map((metric) => ({ ...metric, view: chart({ ...metric, series }) }));
  }

  return {
    node,
    density() {
      const last = list[list.length - 1]?.layers;
      return last?.length ? last.reduce((sum, m) => sum + m.density, 0) / last.length : undefined;
    },
    add(refresh) {
      while (list.length && list[list.length - 1].step >= refresh.step) list.pop();
      list.push(refresh);
      dirty = true;
    },
    draw() {
      if (!dirty) return;
      dirty = false;
      if (!list.length) {
        node.replaceChildren(el('p', { class: 'card muted' }, sparsity.refresh_interval ? 'The masks have not been refreshed yet.'
          : `The method ${sparsity.method} does not refresh masks.`));
        return;
      }
      const last = list[list.length - 1];
      const now = 1 + Math.max(...last.layers.map((m) => layerOf(m.name)));
      if (now !== layers) { views.forEach((v) => v.view.destroy()); layers = now; build(); }
      const open = node.querySelector('details.matrices')?.open ?? false;
      node.replaceChildren(el('div', { class: 'grid' }, views.map((v) => v.view.node)),
        el('details', { class: 'card matrices', open }, el('summary', {}, `Refresh ${last.refresh} after step ${last.step} (zeta ${number(last.zeta)}), every matrix`),
          table(COLUMNS, last.layers)));
      for (const { key, view } of views) {
        const rows = list.map((r) => perLayer(r, key));
        view.set([list.map((r) => r.step), ...Array.from({ length: layers }, (_, i) => rows.map((row) => row[i]))]);
      }
    },
    destroy() { views.forEach((v) => v.view.destroy()); },
  };
}
