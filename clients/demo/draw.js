// Paints a lane: each number as a cell, and the curves under them on the same scale.

/**
 * @typedef {import("./counter.js").Counter} Counter
 * @typedef {import("./feed.js").Metric} Metric
 * @typedef {import("./feed.js").Series} Series
 * @typedef {{ from: number, columns: number }} Span the numbers that fit, by columns
 */

const ROWS = 6; // with CELL they make the height that the style sheet gives the strip
const CELL = 12; // a column is so wide, the space beside it included
const SPACE = 2;

/** A canvas that is as sharp as the screen. */
export class Canvas {
  width = 0;
  height = 0;

  /**
   * @param {HTMLCanvasElement} element
   * @param {() => void} changed called when its size has changed, and is empty
   */
  constructor(element, changed) {
    this.element = element;
    const context = element.getContext("2d");
    if (!context) {
      throw new Error("The browser gives no canvas.");
    }
    this.context = context;
    new ResizeObserver(() => {
      this.#fit();
      changed();
    }).observe(element);
    this.#fit();
  }

  #fit() {
    const scale = window.devicePixelRatio || 1;
    this.width = this.element.clientWidth;
    this.height = this.element.clientHeight;
    this.element.width = Math.round(this.width * scale);
    this.element.height = Math.round(this.height * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
  }

  clear() {
    this.context.clearRect(0, 0, this.width, this.height);
  }
}

/** @typedef {{ cell: string, late: string, missed: string, empty: string, band: string }} Colors */

/**
 * The colours of the style sheet, as they hold for an element now.
 * @param {Element} element
 * @returns {Colors}
 */
export function colorsOf(element) {
  const style = getComputedStyle(element);
  const of = (/** @type {string} */ name) => style.getPropertyValue(name);
  return {
    cell: of("--cell"),
    late: of("--late"),
    missed: of("--missed"),
    empty: of("--empty"),
    band: of("--band"),
  };
}

/**
 * Which numbers a strip shows, so that the highest is in its last column.
 * @param {number} head
 * @param {number} width
 * @returns {Span}
 */
export function spanOf(head, width) {
  const columns = Math.max(1, Math.floor((width + SPACE) / CELL));
  const last = Math.floor(head / ROWS);
  return { from: (last - columns + 1) * ROWS, columns };
}

/**
 * @param {Canvas} canvas
 * @param {Counter} counter
 * @param {Series} series
 * @param {Span} span
 * @param {Colors} colors
 */
export function drawStrip(canvas, counter, series, span, colors) {
  const { context } = canvas;
  canvas.clear();
  for (let i = 0; i < span.columns * ROWS; i++) {
    const n = span.from + i;
    const x = Math.floor(i / ROWS) * CELL;
    const y = (i % ROWS) * CELL;
    const what = counter.what(n);
    if (what === "missed") {
      context.fillStyle = colors.missed; // a block, not a cell: to be told without colours too
      context.fillRect(x - SPACE / 2, y - SPACE / 2, CELL, CELL);
    } else {
      const late = series.wasLate(n);
      context.fillStyle = what === "" ? colors.empty : late ? colors.late : colors.cell;
      context.fillRect(x, y, CELL - SPACE, CELL - SPACE);
    }
  }
}

/**
 * A curve over the same span. It stops where something is missing.
 * @param {Canvas} canvas
 * @param {Counter} counter
 * @param {Series} series
 * @param {Metric} metric
 * @param {Span} span
 * @param {Colors} colors
 */
export function drawCurve(canvas, counter, series, metric, span, colors) {
  const { context, height } = canvas;
  canvas.clear();
  const total = span.columns * ROWS;
  const top = topOf(series, metric, span);
  const step = CELL / ROWS;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.strokeStyle = colors.cell;
  context.fillStyle = colors.band;
  context.beginPath();
  let drawing = false;
  for (let i = 0; i < total; i++) {
    const value = series.value(metric, span.from + i);
    const x = i * step;
    if (Number.isNaN(value)) {
      drawing = false;
      if (counter.what(span.from + i) === "missed") {
        context.fillRect(Math.floor(x), 0, Math.ceil(step), height);
      }
      continue;
    }
    const y = height - 2 - (value / top) * (height - 4);
    if (drawing) {
      context.lineTo(x, y);
    } else {
      context.moveTo(x, y);
    }
    drawing = true;
  }
  context.stroke();
}

/**
 * The value at the upper edge: 100 percent, or for bytes the most in sight.
 * @param {Series} series
 * @param {Metric} metric
 * @param {Span} span
 */
function topOf(series, metric, span) {
  if (metric !== "network") {
    return 100;
  }
  let top = 10_000;
  for (let n = span.from; n < span.from + span.columns * ROWS; n++) {
    top = Math.max(top, series.value(metric, n) || 0);
  }
  return top;
}
