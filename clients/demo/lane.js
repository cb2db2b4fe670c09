// What is to be seen of one lane: its state, its counts, its numbers as cells.

import { Counter } from "./counter.js";
import { count, setText } from "./dom.js";
import { Canvas, colorsOf, drawCurve, drawStrip, spanOf } from "./draw.js";
import { inWords, readPoint, Series } from "./feed.js";

/**
 * @typedef {import("./counter.js").Kept} Kept
 * @typedef {import("./feed.js").Metric} Metric
 * @typedef {import("./feed.js").Point} Point
 */

/** What came later than this after it was measured did not come live. */
const LATE = 1000;

/** @type {Metric[]} */
const METRICS = ["cpu", "memory", "network"];

export class Lane {
  series = new Series();
  /** The time of the newest message. */
  newest = 0;
  #dirty = true;
  #state = "";
  /** @type {Point | undefined} */
  #last;

  /**
   * @param {HTMLElement} root
   * @param {Kept | null} [kept]
   */
  constructor(root, kept) {
    this.root = root;
    this.name = root.dataset.name ?? "";
    this.counter = new Counter(kept);
    this.colors = colorsOf(root);
    const touch = () => {
      this.#dirty = true;
    };
    this.strip = new Canvas(this.#part("strip"), touch);
    this.curves = METRICS.filter((metric) => this.#has(metric)).map((metric) => ({
      metric,
      canvas: new Canvas(this.#part(metric), touch),
      value: this.#part(`${metric}-value`),
    }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colors = colorsOf(root);
      touch();
    });
  }

  /** @param {string} name */
  #has(name) {
    return this.root.querySelector(`[data-part="${name}"]`) !== null;
  }

  /** @param {string} name */
  #part(name) {
    return /** @type {HTMLCanvasElement} */ (this.root.querySelector(`[data-part="${name}"]`));
  }

  /**
   * Takes the payload of a message.
   * @param {string} payload
   */
  take(payload) {
    const point = readPoint(payload);
    if (!point) {
      return undefined;
    }
    this.counter.see(point.n, point.time);
    this.series.add(point, Date.now() - point.time > LATE);
    if (point.n >= this.counter.highest) {
      this.#last = point;
      this.newest = point.time;
    }
    this.#dirty = true;
    return point;
  }

  /** Forgets what was counted. */
  reset() {
    this.counter = new Counter();
    this.series = new Series();
    this.#dirty = true;
  }

  /** @param {string} state */
  set state(state) {
    this.#state = state;
    this.root.dataset.state = state;
    setText(this.#part("state"), state);
  }

  get state() {
    return this.#state;
  }

  /**
   * Shows what has changed.
   * @param {number} head the highest number that any lane has
   */
  draw(head) {
    if (!this.#dirty || this.strip.width === 0) {
      return;
    }
    this.#dirty = false;
    const { counter, series, colors } = this;
    const span = spanOf(head, this.strip.width);
    drawStrip(this.strip, counter, series, span, colors);
    for (const { metric, canvas, value } of this.curves) {
      drawCurve(canvas, counter, series, metric, span, colors);
      setText(value, this.#last ? inWords(metric, this.#last) : "");
    }
    setText(this.#part("received"), count(counter.received));
    // Who has received nothing has not missed nothing: nobody knows.
    setText(this.#part("missed"), counter.received ? count(counter.missed) : "–");
    setText(this.#part("repeated"), count(counter.repeated));
    setText(this.#part("disorder"), count(counter.outOfOrder));
    this.root.classList.toggle("holes", counter.missed > 0);
  }

  /** Draws the next time even if nothing came: the other lane has gone on. */
  touch() {
    this.#dirty = true;
  }

  /** The lane in a sentence. */
  words() {
    const { received, missed } = this.counter;
    return `${this.name}: ${count(received)} received, ${missed === 0 ? "none" : count(missed)} missed.`;
  }
}
