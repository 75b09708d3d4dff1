// Draws the charts of a page with uPlot, over the SVG that is there without this file. A chart that has changed gets its
// new numbers and stays where it is.
(() => {
  const drawn = new WeakMap();
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const colours = { running: "--running", ready: "--ready", delayed: "--wait", warn: "--warn", failed: "--bad" };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shown = (unit, value) =>
    value == null ? "–" : unit === "jobs" ? number.format(value) : value < 1 ? `${number.format(value * 1000)} ms` : `${number.format(value)} s`;

  const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  // No line leads to these.
  const alone = (plot, line) =>
    plot.data[line].flatMap((value, at, all) => (value != null && all[at - 1] == null && all[at + 1] == null ? [at] : []));

  const options = (figure, chart) => ({
    width: figure.clientWidth - 28,
    height: 150,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high, chart.unit === "jobs" ? 1 : 0.001)] } },
    axes: [
      { stroke: colour("--soft"), grid: { show: false }, ticks: { stroke: colour("--line") }, values: (_, values) => values.map(time) },
      {
        stroke: colour("--soft"),
        size: 60,
        grid: { stroke: colour("--line"), width: 1 },
        ticks: { show: false },
        values: (_, values) => values.map((value) => shown(chart.unit, value)),
      },
    ],
    series: [{}, ...chart.lines.map((line) => ({ label: line.name, stroke: colour(colours[line.colour]), width: 1.5, points: { show: true, size: 5, filter: alone } }))],
    hooks: {
      setCursor: [
        (plot) => {
          const at = plot.cursor.idx;
          const told = at == null ? "" : chart.lines.map((line, each) => `${line.name} ${shown(chart.unit, plot.data[each + 1][at])}`).join(", ");
          plot.root.title = at == null ? "" : `${time(plot.data[0][at])}: ${told}`;
        },
      ],
    },
  });

  const draw = () => {
    for (const figure of document.querySelectorAll("figure[data-chart]")) {
      const text = figure.dataset.chart;
      const place = figure.querySelector(".drawn");
      const known = drawn.get(place);
      if (known?.text === text) continue;
      const chart = JSON.parse(text);
      const data = [chart.times, ...chart.lines.map((line) => line.values)];
      if (known) known.plot.setData(data);
      drawn.set(place, { text, plot: known?.plot ?? new uPlot(options(figure, chart), data, place) });
    }
  };
  const again = () => {
    for (const place of document.querySelectorAll(".drawn")) {
      drawn.get(place)?.plot.destroy();
      drawn.delete(place);
    }
    draw();
  };
  draw();
  new MutationObserver(draw).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-chart"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("resize", again);
})();
