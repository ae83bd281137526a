"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const get = (id) => document.getElementById(id);
  const columnOf = new Map(data.columns.map((column) => [column.key, column]));
  const colourOf = (level) => data.palette[level % data.palette.length];

  // --- elements, scales and numbers ---

  function svg(name, attributes, parent, text) {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.appendChild(element);
    return element;
  }

  function html(name, parent, text, className) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    if (parent) parent.appendChild(element);
    return element;
  }

  function options(select, choices, chosen) {
    for (const [value, label] of choices) html("option", select, label).value = value;
    select.value = chosen;
  }

  const exact = (mark) => String(+mark.toPrecision(6));
  const short = (value) => (value === 0 ? "0" : String(+value.toPrecision(3)));

  function cellText(column, row) {
    const value = column.values[row];
    if (value === null) return "–";
    if (column.kind === "category") return column.levels[value];
    if (column.kind === "number") return column.digits === null ? short(value) : value.toFixed(column.digits);
    return String(value);
  }

  /** Round numbers that divide a range into about `count` parts. */
  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const marks = [];
    for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k++) marks.push(+(k * step).toPrecision(12));
    return marks;
  }

  /** 1, 2 and 5 times powers of ten within a range; every other one left out until there are at most ten. */
  function logTicks(low, high) {
    let marks = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of [1, 2, 5]) marks.push(+(m * 10 ** e).toPrecision(3));
    }
    marks = marks.filter((mark) => mark >= low && mark <= high);
    if (marks.length > 8) marks = marks.filter((mark) => /^10*$|^0?\.?0*1$|^1e/.test(String(mark)));
    while (marks.length > 8) marks = marks.filter((_, index) => index % 2 === 0);
    return marks.length > 1 ? marks : [low, high];
  }

  function mix(share) {
    const place = Math.min(Math.max(share, 0), 1) * (data.sequence.length - 1);
    const index = Math.min(Math.floor(place), data.sequence.length - 2);
    const parts = [data.sequence[index], data.sequence[index + 1]].map((hex) =>
      [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    const colour = parts[0].map((from, k) => Math.round(from + (parts[1][k] - from) * (place - index)));
    return `rgb(${colour.join(",")})`;
  }

  /** Frame with axes, grid and labels; returns the drawing and functions from numbers to places. */
  function frame(stage, label, x, y) {
    const width = Math.max(stage.clientWidth, 280);
    const height = Math.round(Math.min(Math.max(width * 0.62, 280), 520));
    const edge = { left: 54, right: 12, top: 10, bottom: 42 };
    const marks = (axis, count) => axis.ticks || (axis.log ? logTicks(axis.low, axis.high) : ticks(axis.low, axis.high, count));
    const upMarks = marks(y, 6);
    edge.left = 30 + 7 * Math.max(...upMarks.map((mark) => exact(mark).length));
    const place = (axis, from, to) => {
      const forward = axis.log ? Math.log10 : (value) => value;
      const low = forward(axis.low);
      const span = forward(axis.high) - low || 1;
      return (value) => from + ((forward(value) - low) / span) * (to - from);
    };
    const toX = place(x, edge.left, width - edge.right);
    const toY = place(y, height - edge.bottom, edge.top);
    stage.replaceChildren();
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, stage);
    for (const mark of marks(x, width < 500 ? 4 : 8)) {
      svg("line", { class: "rule", x1: toX(mark), x2: toX(mark), y1: edge.top, y2: height - edge.bottom }, drawing);
      svg("text", { x: toX(mark), y: height - edge.bottom + 17, "text-anchor": "middle" }, drawing, exact(mark));
    }
    for (const mark of upMarks) {
      svg("line", { class: "rule", x1: edge.left, x2: width - edge.right, y1: toY(mark), y2: toY(mark) }, drawing);
      svg("text", { x: edge.left - 8, y: toY(mark) + 4, "text-anchor": "end" }, drawing, exact(mark));
    }
    svg("text", { x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle" }, drawing, x.label);
    const middle = (edge.top + height - edge.bottom) / 2;
    svg("text", { transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" }, drawing, y.label);
    return { drawing, toX, toY, width, height, edge };
  }

  function legendOf(element, entries) {
    element.replaceChildren();
    for (const [colour, label] of entries) {
      const item = html("span", element);
      html("i", item).style.background = colour;
      item.append(label);
    }
  }

  function showTip(event, title, entries) {
    const tip = get("tooltip");
    tip.replaceChildren();
    html("strong", tip, title);
    const list = html("dl", tip);
    for (const [term, value] of entries) {
      html("dt", list, term);
      html("dd", list, value);
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${Math.min(Math.max(event.clientY - box.height / 2, 8), innerHeight - box.height - 8)}px`;
  }

  const hideTip = () => { get("tooltip").hidden = true; };

  function onResize(stage, draw) {
    let width = stage.clientWidth;
    new ResizeObserver(() => {
      if (stage.clientWidth !== width) {
        width = stage.clientWidth;
        draw();
      }
    }).observe(stage);
  }

  // --- the scatter of models, epoch by epoch ---

  function explorer(source) {
    const stage = get("explorer");
    const slider = get("explorer-slider");
    const quantityOf = new Map(source.quantities.map((quantity) => [quantity.key, quantity]));
    const value = (quantity, epoch, model) => {
      const step = quantity.steps[epoch][model];
      if (step === null) return null;
      const number = quantity.low + (step / data.quantum) * (quantity.high - quantity.low);
      return quantity.log ? 10 ** number : number;
    };
    const names = source.quantities.map((quantity) => [quantity.key, quantity.label]);
    const hasMap = quantityOf.has("pc2");
    options(get("explorer-x"), names, hasMap ? "pc1" : "norm");
    options(get("explorer-y"), names, hasMap ? "pc2" : "test_accuracy");
    const categories = data.columns.filter((column) => column.kind === "category");
    const numbers = data.columns.filter((column) => column.kind === "number");
    const colours = [
      ...categories.map((column) => [`column ${column.key}`, column.label]),
      ...source.quantities.map((quantity) => [`epoch ${quantity.key}`, `${quantity.label} at the epoch`]),
      ...numbers.map((column) => [`column ${column.key}`, `${column.label}${column.digits === null ? "" : " (final)"}`]),
    ];
    options(get("explorer-colour"), colours, "column test_accuracy");
    slider.max = source.epochs.length - 1;
    slider.value = slider.max;
    slider.disabled = source.epochs.length < 2;
    let points = [];
    let view = null;
    let chosen = null;
    let timer = 0;

    function axis(key) {
      const quantity = quantityOf.get(key);
      const margin = (quantity.high - quantity.low) * 0.03;
      const [low, high] = [quantity.low - margin, quantity.high + margin];
      return quantity.log ? { low: 10 ** low, high: 10 ** high, log: true, label: quantity.label } : { low, high, label: quantity.label };
    }

    function colouring(epoch) {
      const [kind, key] = get("explorer-colour").value.split(" ");
      const column = columnOf.get(key);
      if (kind === "column" && column.kind === "category") {
        const used = new Set(source.rows.map((row) => column.values[row]));
        legendOf(get("explorer-legend"), column.levels.map((name, k) => [colourOf(k), name]).filter((_, k) => used.has(k)));
        return (model) => colourOf(column.values[source.rows[model]]);
      }
      const log = kind === "epoch" && quantityOf.get(key).log;
      const read = kind === "column" ? (model) => column.values[source.rows[model]] : (model) => value(quantityOf.get(key), epoch, model);
      let low, high;
      if (kind === "epoch") ({ low, high } = quantityOf.get(key));
      else {
        const present = source.rows.map((row) => column.values[row]).filter((number) => number !== null);
        low = Math.min(...present);
        high = Math.max(...present);
      }
      const legend = get("explorer-legend");
      legend.replaceChildren();
      html("b", legend, short(log ? 10 ** low : low));
      html("span", legend, undefined, "ramp").style.background = `linear-gradient(90deg, ${data.sequence.join(",")})`;
      html("b", legend, short(log ? 10 ** high : high));
      return (model) => {
        const number = read(model);
        return number === null ? "var(--grid)" : mix(((log ? Math.log10(number) : number) - low) / (high - low || 1));
      };
    }

    function build() {
      const [x, y] = [get("explorer-x").value, get("explorer-y").value];
      view = frame(stage, "Models as points; choose the axes and the colour above", axis(x), axis(y));
      const radius = source.rows.length > 700 ? 3.2 : 4.5;
      points = source.rows.map(() => svg("circle", { r: radius, fill: "none" }, view.drawing));
      view.drawing.addEventListener("pointermove", point);
      view.drawing.addEventListener("pointerdown", point);
      view.drawing.addEventListener("pointerleave", leave);
      update();
    }

    function update() {
      const epoch = +slider.value;
      const [x, y] = [quantityOf.get(get("explorer-x").value), quantityOf.get(get("explorer-y").value)];
      const colour = colouring(epoch);
      get("explorer-epoch").textContent = source.epochs[epoch];
      slider.setAttribute("aria-valuetext", `epoch ${source.epochs[epoch]}`);
      points.forEach((circle, model) => {
        const [across, up] = [value(x, epoch, model), value(y, epoch, model)];
        circle.style.display = across === null || up === null ? "none" : "";
        if (across === null || up === null) return;
        circle.setAttribute("cx", view.toX(across).toFixed(1));
        circle.setAttribute("cy", view.toY(up).toFixed(1));
        circle.setAttribute("fill", colour(model));
      });
      leave();
    }

    function nearest(event) {
      const box = view.drawing.getBoundingClientRect();
      const scale = view.width / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let [best, distance] = [null, 18 ** 2];
      points.forEach((circle, model) => {
        if (circle.style.display === "none") return;
        const d = (circle.getAttribute("cx") - x) ** 2 + (circle.getAttribute("cy") - y) ** 2;
        if (d < distance) [best, distance] = [model, d];
      });
      return best;
    }

    function point(event) {
      const model = nearest(event);
      if (model === null) return leave();
      if (chosen !== null) points[chosen].classList.remove("chosen");
      chosen = model;
      points[model].classList.add("chosen");
      const row = source.rows[model];
      const epoch = +slider.value;
      const known = data.columns.filter((column) => !["model", "member", "split"].includes(column.key) && column.digits !== 4 && column.key !== "best_epoch");
      const now = source.quantities.filter((quantity) => !quantity.key.startsWith("pc"));
      showTip(event, `Model ${cellText(columnOf.get("model"), row)}`, [
        ...known.map((column) => [column.label, cellText(column, row)]),
        ...now.map((quantity) => [quantity.label, value(quantity, epoch, model)]).map(([l, v]) => [l, v === null ? "–" : short(v)]),
      ]);
    }

    function leave() {
      if (chosen !== null) points[chosen]?.classList.remove("chosen");
      chosen = null;
      hideTip();
    }

    function stop() {
      clearInterval(timer);
      timer = 0;
      get("explorer-play").textContent = "Play";
    }

    function play() {
      if (timer) return stop();
      if (slider.value === slider.max) slider.value = 0;
      get("explorer-play").textContent = "Pause";
      update();
      timer = setInterval(() => {
        if (slider.value === slider.max) return stop();
        slider.value = +slider.value + 1;
        update();
      }, 350);
    }

    for (const id of ["explorer-x", "explorer-y"]) get(id).addEventListener("change", build);
    get("explorer-colour").addEventListener("change", update);
    slider.addEventListener("input", () => { stop(); update(); });
    get("explorer-play").addEventListener("click", play);
    get("explorer-play").disabled = slider.disabled;
    onResize(stage, build);
    build();
  }

  // --- curves by factor ---

  function curves(source) {
    const stage = get("curves");
    options(get("curves-metric"), source.metrics.map((metric) => [metric.key, metric.label]), "test_accuracy");
    options(get("curves-group"), source.groups.map((group) => [group.key, group.label]), source.first);
    get("curves-group").parentElement.hidden = source.groups.length < 2;

    function draw() {
      const metric = source.metrics.find((each) => each.key === get("curves-metric").value);
      const group = source.groups.find((each) => each.key === get("curves-group").value);
      const bands = metric.groups[group.key];
      const colour = (level) => (group.levels.length > 1 ? colourOf(level) : "var(--accent)");
      const all = bands.flatMap((band) => [...band.q25, ...band.q75]).filter((number) => number !== null);
      const log = metric.log && Math.min(...all) > 0 && Math.max(...all) > 5 * Math.min(...all);
      let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
      if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
      const margin = log ? 0 : (high - low) * 0.04;
      const y = { low: low - margin, high: high + margin, label: metric.label, log };
      const last = metric.epochs[metric.epochs.length - 1];
      const first = metric.epochs[0];
      const x = { low: first, high: last > first ? last : first + 1, label: "Epoch" };
      x.ticks = ticks(x.low, x.high, stage.clientWidth < 500 ? 5 : 10).filter(Number.isInteger);
      const view = frame(stage, `${metric.label} over the epochs, by ${group.label}`, x, y);
      const present = (band) => metric.epochs.map((_, k) => k).filter((k) => band.median[k] !== null);
      const at = (values) => (k) => `${view.toX(metric.epochs[k]).toFixed(1)},${view.toY(values[k]).toFixed(1)}`;
      bands.forEach((band, level) => {
        const steps = present(band);
        const outline = [...steps.map(at(band.q25)), ...[...steps].reverse().map(at(band.q75))];
        svg("polygon", { points: outline.join(" "), fill: colour(level), opacity: 0.16 }, view.drawing);
      });
      bands.forEach((band, level) => {
        const line = { points: present(band).map(at(band.median)).join(" "), fill: "none", stroke: colour(level), "stroke-width": 2.2 };
        svg("polyline", line, view.drawing);
      });
      const cursor = svg("line", { class: "rule", y1: view.edge.top, y2: view.height - view.edge.bottom, visibility: "hidden" }, view.drawing);
      cursor.style.stroke = "var(--muted)";
      const point = (event) => {
        const box = view.drawing.getBoundingClientRect();
        const place = ((event.clientX - box.left) * view.width) / box.width;
        const distance = (k) => Math.abs(view.toX(metric.epochs[k]) - place);
        const k = metric.epochs.reduce((best, _, each) => (distance(each) < distance(best) ? each : best), 0);
        cursor.setAttribute("x1", view.toX(metric.epochs[k]));
        cursor.setAttribute("x2", view.toX(metric.epochs[k]));
        cursor.setAttribute("visibility", "visible");
        const entries = bands.map((band, level) => [group.levels[level], band.median[k] === null ? "–" : `${short(band.median[k])} (${short(band.q25[k])} to ${short(band.q75[k])})`]);
        showTip(event, `Epoch ${metric.epochs[k]}`, entries);
      };
      view.drawing.addEventListener("pointermove", point);
      view.drawing.addEventListener("pointerdown", point);
      view.drawing.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); hideTip(); });
      legendOf(get("curves-legend"), group.levels.map((name, level) => [colour(level), name]));
    }

    for (const id of ["curves-metric", "curves-group"]) get(id).addEventListener("change", draw);
    onResize(stage, draw);
    draw();
  }

  // --- the table of models ---

  function table(columns) {
    const PAGE = 50;
    const body = get("table").tBodies[0];
    const headings = [...get("table").tHead.rows[0].cells];
    const count = columns[0].values.length;
    const text = Array.from({ length: count }, (_, row) => columns.map((column) => cellText(column, row)).join(" ").toLowerCase());
    let [key, descending, page] = ["best_val_accuracy", true, 0];
    let rows = [];

    const COMPARISONS = {
      "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b, "=": (a, b) => a === b, "!=": (a, b) => a !== b,
    };

    /** A test of rows for one word of the filter, or a message why there is none. */
    function condition(word) {
      const match = /^([a-z_]+)(<=|>=|!=|==?|<|>)(.+)$/.exec(word);
      if (!match) return (row) => text[row].includes(word);
      const [, name, sign, wanted] = match;
      const column = columnOf.get(name);
      if (!column) return `No column ${name}; there are ${columns.map((each) => each.key).join(", ")}.`;
      const compare = COMPARISONS[sign === "==" ? "=" : sign];
      const asNumber = Number(wanted);
      const read = (row) => (column.kind === "category" ? column.levels[column.values[row]].toLowerCase() : column.values[row]);
      return (row) => {
        const value = read(row);
        if (value === null) return false;
        const isNumber = value !== "" && !Number.isNaN(Number(value)) && !Number.isNaN(asNumber);
        return isNumber ? compare(Number(value), asNumber) : compare(String(value), wanted);
      };
    }

    function arrange() {
      const words = get("table-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
      const conditions = words.map(condition);
      const complaint = conditions.find((each) => typeof each === "string");
      const column = columnOf.get(key);
      const sign = descending ? -1 : 1;
      rows = complaint ? [] : Array.from({ length: count }, (_, row) => row).filter((row) => conditions.every((test) => test(row)));
      rows.sort((a, b) => {
        const [one, other] = [column.values[a], column.values[b]];
        if (one === null || other === null) return (one === null) - (other === null) || a - b;
        return (one < other ? -sign : one > other ? sign : 0) || a - b;
      });
      page = 0;
      show(complaint);
    }

    function show(complaint) {
      const part = rows.slice(page * PAGE, (page + 1) * PAGE);
      body.replaceChildren(...part.map((row) => {
        const line = document.createElement("tr");
        for (const column of columns) {
          const cell = html("td", line, undefined, column.kind === "category" || column.kind === "text" ? "text" : "");
          const content = cellText(column, row);
          if (column.key === "member") html("code", cell, content);
          else if (column.key === "status" && content !== "finished") html("span", cell, content, "bad");
          else cell.textContent = content;
        }
        return line;
      }));
      headings.forEach((heading, index) => {
        if (columns[index].key === key) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else heading.removeAttribute("aria-sort");
      });
      const last = page * PAGE + part.length;
      const range = part.length ? `${page * PAGE + 1} to ${last} of ${rows.length}` : "None";
      const match = rows.length < count ? ` that match, of ${count} models` : " models";
      get("table-count").textContent = complaint || `${range}${match}. Metrics of diverged models are left out.`;
      get("table-previous").disabled = page === 0;
      get("table-next").disabled = last >= rows.length;
    }

    headings.forEach((heading, index) => {
      const column = columns[index];
      heading.textContent = "";
      if (column.kind === "category" || column.kind === "text") heading.className = "text";
      const button = html("button", heading, column.label);
      button.type = "button";
      button.addEventListener("click", () => {
        descending = key === column.key ? !descending : column.kind === "number" && column.digits !== null;
        key = column.key;
        arrange();
      });
    });
    get("table-count").setAttribute("aria-live", "polite");
    get("table-filter").addEventListener("input", arrange);
    get("table-controls").addEventListener("submit", (event) => event.preventDefault());
    get("table-previous").addEventListener("click", () => { page -= 1; show(); });
    get("table-next").addEventListener("click", () => { page += 1; show(); });
    arrange();
  }

  document.documentElement.classList.add("scripted");
  table(data.columns);
  if (data.explorer) explorer(data.explorer);
  curves(data.curves);
})();
