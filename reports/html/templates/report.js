// Three jobs: sort and filter the table, unpack what a page of many edits holds packed, open the story that is linked to.
"use strict";
(() => {
  // ---- what is packed: JSON, gzipped, in base64; it was escaped when the page was made
  const packs = new Map();
  function unpacked(id) {
    if (!packs.has(id)) {
      const packed = JSON.parse(document.getElementById(id).textContent);
      const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      packs.set(id, new Response(stream).json());
    }
    return packs.get(id);
  }
  function elements(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return [...template.content.children];
  }

  // ---- the table; of many edits a part is shown, and all of them are sorted and filtered
  const table = document.getElementById("edits-table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const text = document.getElementById("filter-text");
  const decision = document.getElementById("filter-decision");
  const result = document.getElementById("filter-result");
  const count = document.getElementById("filter-count");
  const more = document.getElementById("more-edits");
  const step = more ? rows.length : Infinity;
  const words = new Map();
  let limit = step;
  let complete = null;

  function all() {
    complete ??= more ? unpacked("rows").then((parts) => rows.push(...elements(parts.join("")))) : Promise.resolve();
    return complete;
  }
  function rowWords(row) {
    if (!words.has(row)) words.set(row, row.textContent.toLowerCase());
    return words.get(row);
  }
  async function show() {
    await all();
    const terms = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (row) =>
      (!decision.value || row.dataset.decision === decision.value) &&
      (!result.value || row.dataset.result === result.value) &&
      terms.every((word) => rowWords(row).includes(word));
    const fitting = rows.filter(fits);
    body.replaceChildren(...fitting.slice(0, limit));
    const fittingIds = new Set(fitting.map((row) => row.dataset.story));
    for (const story of document.querySelectorAll("details[data-edit]")) story.hidden = !fittingIds.has(story.id);
    const part = fitting.length > limit ? `, the first ${limit} of them are shown` : "";
    count.textContent = more ? `${fitting.length} of ${rows.length} found${part}` : `${fitting.length} of ${rows.length} shown`;
    if (more) more.hidden = fitting.length <= limit;
  }
  for (const control of [text, decision, result]) {
    control.addEventListener("input", () => {
      limit = step;
      show();
    });
  }
  if (more) {
    more.addEventListener("click", () => {
      limit += step;
      show();
    });
  }

  async function sort(button) {
    await all();
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
      const difference = numeric ? a - b : order.compare(a, b);
      return ascending ? difference : -difference;
    });
    rows.splice(0, rows.length, ...keyed.map(([, row]) => row));
    await show();
  }
  for (const button of table.querySelectorAll("th button")) button.addEventListener("click", () => sort(button));

  // ---- stories: a link to one opens it, also when a filter hid it; of many edits it is unpacked then
  const opened = document.getElementById("opened");
  const places = new Map();
  if (opened) {
    JSON.parse(document.getElementById("places").textContent).forEach((id, place) => places.set(id, place));
  }
  async function findStory(id) {
    const there = document.getElementById(id);
    if (there || !places.has(id)) return there;
    const size = Number(opened.dataset.pack);
    const place = places.get(id);
    const stories = await unpacked(`pack-${Math.floor(place / size)}`);
    if (!document.getElementById(id)) opened.prepend(...elements(stories[place % size]));
    return document.getElementById(id);
  }
  async function open() {
    const story = location.hash.length > 1 && (await findStory(decodeURIComponent(location.hash.slice(1))));
    if (!story || !story.classList.contains("story")) return;
    story.hidden = false;
    story.open = true;
    story.scrollIntoView();
  }
  addEventListener("hashchange", open);
  open();
})();
