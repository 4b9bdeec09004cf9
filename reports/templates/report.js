// Two jobs: sort and filter the table, open the story that is linked to.
"use strict";
(() => {
  // ---- the table
  const table = document.getElementById("edits-table");
  const rows = [...table.tBodies[0].rows];
  const shown = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const text = document.getElementById("filter-text");
  const decision = document.getElementById("filter-decision");
  const result = document.getElementById("filter-result");
  const count = document.getElementById("filter-count");

  function filter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const row of rows) {
      const fits =
        (!decision.value || row.dataset.decision === decision.value) &&
        (!result.value || row.dataset.result === result.value) &&
        words.every((word) => shown.get(row).includes(word));
      row.hidden = !fits;
      document.getElementById(row.dataset.story).hidden = !fits;
      visible += fits;
    }
    count.textContent = `${visible} of ${rows.length} shown`;
  }
  for (const control of [text, decision, result]) control.addEventListener("input", filter);

  function sort(button) {
    const head = button.closest("th");
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const numeric = button.dataset.sort === "number";
    const keyed = rows.map((row) => {
      const cell = row.cells[head.cellIndex];
      const value = numeric ? cell.dataset.v : cell.textContent;
      return [value === "" ? null : numeric ? Number(value) : value, row];
    });
    const order = new Intl.Collator("en", { numeric: true });
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what was not measured stays last
      const step = numeric ? a - b : order.compare(a, b);
      return ascending ? step : -step;
    });
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }
  for (const button of table.querySelectorAll("th button")) button.addEventListener("click", () => sort(button));

  // ---- stories: a link to one opens it, also when a filter hid it
  function open() {
    const story = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!story || !story.classList.contains("story")) return;
    story.hidden = false;
    story.open = true;
    story.scrollIntoView();
  }
  addEventListener("hashchange", open);
  open();
})();
