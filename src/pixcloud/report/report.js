/* The page's own script: colours charts for light and dark, turns point clouds, singles out classes. */
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const css = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const data = (id) => JSON.parse(document.getElementById(id).textContent);

  /* Charts. A colour "@name" stands for the CSS variable --name. */
  const named = (value) =>
    typeof value === "string" && value.startsWith("@") ? css(value.slice(1)) : value;
  const paint = (value, isColor) => {
    if (Array.isArray(value)) return value.map((inner) => paint(inner, isColor));
    if (value && typeof value === "object")
      return Object.fromEntries(
        Object.entries(value).map(([key, inner]) => [key, paint(inner, /color$/i.test(key))]));
    return isColor ? named(value) : value;
  };
  const themed = (layout) => {
    const axis = { gridcolor: css("grid"), linecolor: css("edge"), tickcolor: css("edge") };
    const narrow = window.innerWidth < 600;
    return {
      ...layout,
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13, color: css("ink") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { bgcolor: css("card"), bordercolor: css("edge"), font: { color: css("ink") } },
    };
  };
  const config = { displaylogo: false, displayModeBar: false, responsive: true };
  const charts = [...document.querySelectorAll(".chart")];
  let chosen = null; /* the class that the feature maps show alone */
  const draw = (chart) => {
    const spec = paint(data("figure-" + chart.dataset.figure), false);
    for (const trace of spec.data)
      if (trace.meta !== undefined && chosen !== null)
        trace.opacity = trace.meta === chosen ? 0.95 : 0.08;
    Plotly.react(chart, spec.data, themed(spec.layout), config);
    chart.dataset.drawn = "yes";
  };

  /* Clouds: three 16-bit numbers a point, drawn from back to front on a plain canvas. */
  const packed = document.getElementById("clouds") ? data("clouds") : {};
  const unpacked = new Map();
  const cloud = (id) => {
    if (!unpacked.has(id)) {
      const bytes = Uint8Array.from(atob(packed[id]), (c) => c.charCodeAt(0));
      const whole = new Int16Array(bytes.buffer);
      unpacked.set(id, Float32Array.from(whole, (v) => v / 32767));
    }
    return unpacked.get(id);
  };
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  let ramp = [];
  const makeRamp = () => {
    const stops = ["low", "middle", "high"].map((name) => rgb(css(name)));
    ramp = Array.from({ length: 33 }, (_, i) => {
      const t = i / 16, [a, b] = t < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]];
      const f = t < 1 ? t : t - 1;
      return "rgb(" + a.map((v, k) => Math.round(v + f * (b[k] - v))).join(",") + ")";
    });
  };
  const views = new WeakMap();
  const START = { yaw: -0.65, pitch: 0.38 };
  const show = (canvas) => {
    const view = views.get(canvas), points = cloud(canvas.dataset.cloud);
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const wide = Math.max(40, Math.round(canvas.clientWidth * ratio));
    const tall = Math.max(40, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== wide || canvas.height !== tall) [canvas.width, canvas.height] = [wide, tall];
    const side = Math.min(wide, 1.16 * tall);
    const count = points.length / 3, order = new Uint16Array(count);
    const px = new Float32Array(count), py = new Float32Array(count), pz = new Float32Array(count);
    const cy = Math.cos(view.yaw), sy = Math.sin(view.yaw);
    const cp = Math.cos(view.pitch), sp = Math.sin(view.pitch);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      const x = points[3 * i], y = points[3 * i + 1], z = points[3 * i + 2];
      const depth = cy * z - sy * x;
      px[i] = cy * x + sy * z;
      py[i] = cp * y - sp * depth;
      pz[i] = sp * y + cp * depth; /* towards the eye */
      low = Math.min(low, y); high = Math.max(high, y);
      order[i] = i;
    }
    order.sort((a, b) => pz[a] - pz[b]);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, wide, tall);
    const size = Math.max(1.1, side / (count > 1200 ? 118 : 88));
    for (const i of order) {
      const scale = 3.2 / (3.2 - pz[i]) * side * 0.43;
      const tone = high > low ? (points[3 * i + 1] - low) / (high - low) : 0.5;
      context.fillStyle = ramp[Math.round(32 * tone)];
      context.globalAlpha = 0.4 + 0.6 * Math.min(1, Math.max(0, (pz[i] + 1) / 1.7));
      context.beginPath();
      const radius = size * (0.5 + 0.13 * (pz[i] + 1));
      context.arc(wide / 2 + px[i] * scale, tall / 2 - py[i] * scale, radius, 0, 7);
      context.fill();
    }
  };
  const soon = (canvas) => {
    const view = views.get(canvas);
    if (view.waiting) return;
    view.waiting = true;
    requestAnimationFrame(() => { view.waiting = false; show(canvas); });
  };
  const turn = (canvas, yaw, pitch) => {
    const view = views.get(canvas);
    view.yaw += yaw;
    view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + pitch));
    soon(canvas);
  };
  const spin = (canvas) => {
    const view = views.get(canvas);
    if (!view.over || view.held || still) return;
    view.yaw += 0.012;
    show(canvas);
    requestAnimationFrame(() => spin(canvas));
  };
  const KEYS = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15] };
  const wake = (canvas) => {
    if (views.has(canvas)) return;
    const view = { ...START };
    views.set(canvas, view);
    show(canvas);
    canvas.addEventListener("pointerdown", (event) => {
      view.held = true;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (view.held) turn(canvas, event.movementX * 0.011, event.movementY * 0.011);
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, () => { view.held = false; });
    canvas.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse" && !view.over) { view.over = true; spin(canvas); }
    });
    canvas.addEventListener("pointerleave", () => { view.over = false; });
    canvas.addEventListener("dblclick", () => { Object.assign(view, START); soon(canvas); });
    canvas.addEventListener("keydown", (event) => {
      const step = KEYS[event.key];
      if (step) { event.preventDefault(); turn(canvas, ...step); }
    });
  };

  /* Classes in the feature maps: a press shows one alone, another press shows all again. */
  const buttons = [...document.querySelectorAll(".keys button")];
  const single = (label) => {
    chosen = label;
    for (const button of buttons)
      button.setAttribute("aria-pressed", String(button.dataset.label === chosen));
    charts.filter((c) => c.dataset.drawn && c.dataset.figure.startsWith("map")).forEach(draw);
  };
  for (const button of buttons)
    button.addEventListener("click", () =>
      single(button.dataset.label === chosen ? null : button.dataset.label));

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) {
      seen.unobserve(entry.target);
      if (entry.target.tagName === "CANVAS") wake(entry.target); else draw(entry.target);
    }
  }, { rootMargin: "300px" });
  const canvases = [...document.querySelectorAll("canvas.cloud")];
  makeRamp();
  for (const element of [...charts, ...canvases]) seen.observe(element);
  const again = () => {
    makeRamp();
    charts.filter((chart) => chart.dataset.drawn).forEach(draw);
    canvases.filter((canvas) => views.has(canvas)).forEach(show);
  };
  dark.addEventListener("change", again);
  window.addEventListener("resize", () => canvases.filter((c) => views.has(c)).forEach(soon));
  window.addEventListener("beforeprint", () => {
    charts.filter((chart) => !chart.dataset.drawn).forEach(draw);
    canvases.forEach(wake);
  });
})();
