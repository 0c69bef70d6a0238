// Small helpers for the page. Text only ever enters as text nodes.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'class') node.className = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const number = (value, digits = 3) =>
  value === null || value === undefined || !Number.isFinite(value) ? '–'
    : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en-US')
      : Number(value.toPrecision(digits + 1)).toString();

export const percent = (value) => (Number.isFinite(value) ? `${number(100 * value)} %` : '–');

export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return '–';
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

export const when = (stamp) => (stamp ? new Date(stamp).toLocaleString() : '–');

export function table(columns, rows, caption) {
  return el('div', { class: 'scroll' }, el('table', {},
    caption ? el('caption', { class: 'muted' }, caption) : null,
    el('thead', {}, el('tr', {}, columns.map((c) =>
      el('th', { scope: 'col', class: c.num ? 'num' : undefined }, c.title)))),
    el('tbody', {}, rows.map((row) => el('tr', {}, columns.map((c) =>
      el('td', { class: c.num ? 'num' : undefined }, c.cell(row))))))));
}
