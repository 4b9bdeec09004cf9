// Three jobs: draw the figures in the reader's colours, sort and filter the table, open the story that is linked to.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // ---- figures: the data names roles, the style sheet has the colours
  const islands = [...document.querySelectorAll("script.figure-data")];

  function axis(given) {
    const title = given.title ? { ...given.title, standoff: 10, font: { color: colour("dim"), size: 13 } } : undefined;
    return { ...given, title, gridcolor: colour("line"), linecolor: colour("line"), tickcolor: colour("line"), automargin: true };
  }

  function themed(figure, narrow) {
    const data = figure.data.map((trace) => ({ ...trace, marker: { ...trace.marker, color: colour(trace.meta.role), line: { width: trace.marker.symbol.endsWith("-open") ? 1.6 : 0 } } }));
    const layout = {
      ...figure.layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colour("sans"), size: 13, color: colour("ink") },
      margin: { l: 60, r: narrow ? 16 : 28, t: 44, b: 52 },
      legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", font: { size: narrow ? 11 : 13 }, itemsizing: "constant" },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink"), family: colour("sans"), size: 13 }, align: "left" },
      hovermode: "closest",
      dragmode: narrow ? false : "zoom",
      xaxis: axis(figure.layout.xaxis),
      yaxis: axis(figure.layout.yaxis),
      shapes: (figure.layout.shapes || []).map((shape) => ({ ...shape, line: { ...shape.line, color: colour("failed") } })),
      annotations: (figure.layout.annotations || []).map((note) => ({ ...note, font: { color: colour("failed"), size: 12 } })),
    };
    return { data, layout };
  }

  function draw() {
    for (const island of islands) {
      const place = document.getElementById(island.dataset.for);
      const figure = themed(JSON.parse(island.textContent), place.clientWidth < 600);
      Plotly.react(place, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
    }
  }
  if (islands.length) {
    draw();
    for (const island of islands) {
      document.getElementById(island.dataset.for).on("plotly_click", (event) => { location.hash = event.points[0].customdata; });
    }
    dark.addEventListener("change", draw);
    addEventListener("beforeprint", draw);
    addEventListener("afterprint", draw);
  }

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
