// Draw the figures in the reader's colours.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // ---- figures: the data names roles, the style sheet has the colours
  const islands = [...document.querySelectorAll("script.figure-data")];

  // Labels that stand at given places are thinned to what there is room for; plotly would print them over each other. They
  // lie or stand for the same reason: where plotly is to find an angle for two long ones, it fails and prints none.
  function ticks(given, room, across) {
    if (given.tickmode !== "array") return {};
    const step = Math.max(1, Math.ceil(given.tickvals.length / Math.max(1, Math.floor(room / 16))));
    const some = (values) => values.filter((_, index) => index % step === 0);
    const ticktext = some(given.ticktext);
    const stand = across && 8 * ticktext.length * Math.max(0, ...ticktext.map((text) => text.length)) > room;
    return { tickvals: some(given.tickvals), ticktext, tickangle: stand ? 90 : 0 };
  }

  function axis(given, room, size, across) {
    const title = given.title ? { ...given.title, standoff: 10, font: { color: colour("dim"), size } } : undefined;
    return { ...given, ...ticks(given, room, across), title, gridcolor: colour("line"), linecolor: colour("line"), tickcolor: colour("line"), automargin: true };
  }

  function points(trace) {
    const marker = { ...trace.marker, color: colour(trace.meta.role), line: { width: trace.marker.symbol.endsWith("-open") ? 1.6 : 0 } };
    return { ...trace, marker, line: { ...trace.line, color: colour(trace.meta.role), width: 1.8 } };
  }

  function heat(trace, narrow) {
    const given = trace.colorbar || {};
    const title = { ...given.title, side: narrow ? "top" : "right", font: { color: colour("dim"), size: 13 } };
    const place = narrow ? { orientation: "h", x: 0.5, y: 1.02, yanchor: "bottom", thickness: 10 } : { thickness: 14 };
    const bar = { ...given, ...place, title, outlinewidth: 0, tickfont: { color: colour("dim") } };
    const upwards = [[trace.meta.below ? 0.5 : 0, colour("soft")], [1, colour(trace.meta.role)]];
    const colorscale = trace.meta.below ? [[0, colour(trace.meta.below)], ...upwards] : upwards;
    return { ...trace, colorscale, colorbar: bar, xgap: 1, ygap: 1 };
  }

  function themed(figure, place) {
    const narrow = place.clientWidth < 600;
    const data = figure.data.map((trace) => (trace.type === "heatmap" ? heat(trace, narrow) : points(trace)));
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
      xaxis: axis(figure.layout.xaxis, place.clientWidth - 120, narrow ? 11 : 13, true),
      yaxis: axis(figure.layout.yaxis, place.clientHeight - 100, narrow ? 11 : 13, false),
      shapes: (figure.layout.shapes || []).map((shape) => ({ ...shape, line: { ...shape.line, color: colour("failed") } })),
      annotations: (figure.layout.annotations || []).map((note) => ({ ...note, font: { color: colour("failed"), size: 12 } })),
    };
    return { data, layout };
  }

  // The library takes longer to read than all the rest of a page: it stands there as text until a figure is drawn.
  function library() {
    if (!window.Plotly) {
      const script = document.createElement("script");
      script.textContent = document.getElementById("plotly").textContent;
      document.head.append(script);
      script.remove();
    }
    return window.Plotly;
  }

  let printing = false;
  function draw(island) {
    const place = document.getElementById(island.dataset.for);
    const figure = themed(JSON.parse(island.textContent), place);
    // Plotly measures its place again a while after a change, which is too late for print.
    const size = { width: place.clientWidth, height: place.clientHeight };
    const layout = printing ? { ...figure.layout, ...size } : figure.layout;
    library().react(place, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
    if (island.dataset.drawn) return;
    island.dataset.drawn = "yes";
    place.on("plotly_click", (event) => {
      const anchor = event.points[0].customdata;
      if (anchor) location.hash = anchor;
    });
  }

  // What is in sight, and all of a page with few marks, is drawn before the page has loaded, so that whoever waits for that
  // has the pictures too. Thousands of marks wait until it can be read and used, and then come one figure after the other.
  const few = islands.reduce((size, island) => size + island.textContent.length, 0) < 5e5;
  const inView = (island) => document.getElementById(island.dataset.for).getBoundingClientRect().top < innerHeight;
  function rest() {
    const waiting = islands.find((island) => !island.dataset.drawn);
    if (!waiting) return;
    draw(waiting);
    setTimeout(rest);
  }
  const again = () => islands.forEach(draw);

  // On paper the sheet is narrower and light, which the style sheet learns before the browser lays the print out.
  function print(begins) {
    printing = begins;
    document.documentElement.toggleAttribute("data-print", begins);
    again();
    if (!begins) islands.forEach((island) => library().Plots.resize(island.dataset.for));
  }
  if (islands.length) {
    islands.filter((island) => few || inView(island)).forEach(draw);
    addEventListener("load", () => setTimeout(rest));
    dark.addEventListener("change", again);
    matchMedia("print").addEventListener("change", (paper) => print(paper.matches));
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
  }
})();
