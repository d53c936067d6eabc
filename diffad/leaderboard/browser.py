"""What the page of the leaderboard adds to the style of all pages, and the script that sorts and filters its tables."""

from __future__ import annotations

STYLE = """
body { max-width: 78rem; }
p, .sub, figcaption { max-width: 46rem; }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; align-items: end; margin: 1.4rem 0 0;
  padding: .8rem 1rem; background: var(--card); border-radius: 4px; }
.filters[hidden] { display: none; }
.filters label { display: grid; gap: .2rem; font-size: .875rem; color: var(--muted); min-width: 0; }
.filters select { font: inherit; font-size: 1rem; color: var(--ink); background: var(--paper); max-width: 100%;
  border: 1px solid var(--line); border-radius: 4px; padding: .35rem .4rem; min-height: 2.75rem; }
.filters p { margin: 0 0 .5rem; }
.board[hidden], tbody[hidden] { display: none; }
.board table { font-size: .875rem; }
.board caption { text-align: left; color: var(--muted); padding: 0 0 .5rem; }
.board caption span, [scope=rowgroup] span { position: sticky; left: 0; display: inline-block;
  max-width: min(46rem, calc(100vw - 2.2rem)); }
.board thead th { padding: 0; } thead th { white-space: nowrap; }
.board thead th:not(:has(button)) { padding: .32rem .7rem; }
.board thead th:first-child:not(:has(button)) { padding-left: 0; }
thead button { all: unset; box-sizing: border-box; display: block; width: 100%; cursor: pointer;
  padding: .6rem .7rem; text-align: inherit; }
thead button::after { content: "\\2195"; opacity: .35; padding-left: .25rem; }
[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
thead button:hover { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
.board [scope=row] { text-align: left; font-weight: 400; white-space: normal; overflow-wrap: anywhere;
  min-width: 9rem; max-width: 22rem; }
.board [scope=row], .board thead th:first-child { position: sticky; left: 0; background: var(--paper); z-index: 1; }
.board [scope=rowgroup] { text-align: left; white-space: normal; padding: 1.1rem 0 .35rem; border-bottom-width: 2px; }
.board td:nth-child(3) { font-weight: 700; }
.board td[data-value] { font-weight: 400; font-size: .78rem; color: var(--muted); }
.board td:nth-child(n+7), .board th:nth-child(n+7), .records td, .records th { text-align: left; }
.board td:nth-child(8) { white-space: normal; min-width: 7rem; }
.board td small { display: inline; margin-left: .5rem; }
.board thead th:first-child button { padding-left: 0; }
td a, .records a { color: var(--accent); } .records th { font-weight: 400; }
.records td:first-child { min-width: 2rem; }
.records td:nth-child(3), .records td:nth-child(4) { font-family: ui-monospace, monospace; font-size: .85em; }
tr:target { background: var(--card); }
.ranges ul { list-style: none; margin: 0; padding: 0; max-width: 58rem; }
.ranges li { display: grid; grid-template-columns: minmax(0, 19rem) 1fr; gap: 0 1rem;
  align-items: center; margin: 0;
  font-size: .875rem; line-height: 1.3; padding: .12rem 0; }
.ranges li > span { text-align: right; overflow-wrap: anywhere; }
.ranges li > div { position: relative; height: 1.5rem; margin: 0 .5rem;
  background: linear-gradient(var(--line), var(--line)) center / 100% 1px no-repeat; }
.ranges li > div::before { content: ""; position: absolute; left: 50%; top: -.3rem; bottom: -.3rem;
  border-left: 1px solid var(--muted); opacity: .6; }
.ranges li > .axis { background: none; display: flex; justify-content: space-between; height: auto;
  color: var(--muted); }
.ranges .axis::before { content: none; } .ranges .axis b { font-weight: 400; width: 0; display: flex;
  justify-content: center; }
.ranges i { print-color-adjust: exact; }
.ranges div i { position: absolute; top: 50%; translate: -50% -50%; }
.ranges .certified { width: 11px; height: 11px; border-radius: 50%; background: var(--accent); }
.ranges .attacked { width: 12px; height: 10px; background: var(--attack); clip-path: polygon(0 0, 100% 0, 50% 100%); }
.ranges .clean { width: 10px; height: 10px; border: 2px solid var(--muted); background: var(--paper);
  rotate: 45deg; }
.ranges .gap { height: 12px; min-width: 1px; background: color-mix(in srgb, var(--accent) 38%, transparent); }
.ranges .gap.open { background: repeating-linear-gradient(135deg,
  color-mix(in srgb, var(--accent) 30%, transparent) 0 2px, transparent 2px 5px); }
.ranges div .gap { translate: 0 -50%; } .ranges div .attacked { translate: -50% -100%; }
.ranges .key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .6rem 0 0; }
.ranges .key i { display: inline-block; vertical-align: -1px; margin-right: .15rem; } .ranges .key .gap { width: 22px; }
:root { --attack: #D55E00; }
@media (prefers-color-scheme: dark) { :root { --attack: #F08A4B; } }
@media (max-width: 44rem) {
  .filters label, .filters select { width: 100%; }
  .board td small { display: block; margin: 0; }
  .board [scope=row] { min-width: 7.5rem; max-width: 7.5rem; font-size: .8rem; line-height: 1.25; }
  .ranges li { grid-template-columns: 1fr; padding-top: .3rem; } .ranges li > span { text-align: left; }
}
"""

SCRIPT = """
(() => {
  const form = document.querySelector(".filters"), status = form.querySelector("[role=status]");
  const boards = [...document.querySelectorAll(".board")];
  const value = (row, column, number) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent;
    return number ? parseFloat(text) : text;
  };
  const sort = (head) => {
    const number = head.dataset.sort === "number", column = head.cellIndex;
    const first = number ? "descending" : "ascending", other = number ? "ascending" : "descending";
    const order = head.ariaSort === first ? other : first, sign = order === "ascending" ? 1 : -1;
    for (const one of head.parentNode.cells) one.ariaSort = one === head ? order : "none";
    for (const body of head.closest("table").tBodies) {
      const rows = [...body.rows].slice(1).map((row) => [value(row, column, number), row]);
      rows.sort(([a], [b]) => !number ? (a === "-") - (b === "-") || sign * a.localeCompare(b, "en", { numeric: true })
        : Number.isNaN(a) - Number.isNaN(b) || (Number.isNaN(a) ? 0 : sign * (a - b)));
      body.append(...rows.map(([, row]) => row));
    }
  };
  for (const head of document.querySelectorAll("[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head));
  }
  const filter = () => {
    const [set, side, threat] = ["set", "side", "threat"].map((name) => form.elements[name].value);
    let shown = 0;
    for (const board of boards) {
      let rows = 0;
      for (const body of board.querySelectorAll("tbody")) {
        body.hidden = (side && body.dataset.side !== side) || (threat && body.dataset.threat !== threat);
        rows += body.hidden ? 0 : body.rows.length - 1;
      }
      board.hidden = !rows || (set && board.dataset.set !== set);
      shown += board.hidden ? 0 : rows;
    }
    status.textContent = `${shown} rows`;
  };
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
"""
