// The feed: what a message of demo.host says, and the last values of a lane.

export const TOPIC = "demo.host";

/**
 * @typedef {object} Point
 * @property {number} n running number: from 1 on, without a hole
 * @property {number} time when it was measured, in milliseconds since 1970
 * @property {number} cpu percent; NaN, as the others, where it cannot be measured
 * @property {number} memory percent
 * @property {number} network bytes in a second, in and out
 */

/**
 * Reads a payload. Anybody may publish to the topic: what is no point gives undefined.
 * @param {string} payload
 * @returns {Point | undefined}
 */
export function readPoint(payload) {
  try {
    const said = JSON.parse(payload);
    const of = (/** @type {string} */ name) => (Number.isFinite(said[name]) ? said[name] : Number.NaN);
    const time = Date.parse(said.time);
    return Number.isSafeInteger(said.n) && said.n > 0 && time
      ? { n: said.n, time, cpu: of("cpu"), memory: of("memory"), network: of("rx") + of("tx") }
      : undefined;
  } catch {
    return undefined;
  }
}

/** A power of two, above the numbers that fit into a chart. */
const SIZE = 2048;

/** The last values of a lane, by their running number. */
export class Series {
  #n = new Float64Array(SIZE);
  #late = new Uint8Array(SIZE);
  #values = {
    cpu: new Float32Array(SIZE),
    memory: new Float32Array(SIZE),
    network: new Float32Array(SIZE),
  };

  /**
   * @param {Point} point
   * @param {boolean} late
   */
  add(point, late) {
    const at = point.n % SIZE;
    this.#n[at] = point.n;
    this.#late[at] = late ? 1 : 0;
    this.#values.cpu[at] = point.cpu;
    this.#values.memory[at] = point.memory;
    this.#values.network[at] = point.network;
  }

  /**
   * NaN where nothing is known.
   * @param {Metric} metric
   * @param {number} n
   */
  value(metric, n) {
    const at = n % SIZE;
    return this.#n[at] === n ? /** @type {number} */ (this.#values[metric][at]) : Number.NaN;
  }

  /** @param {number} n */
  wasLate(n) {
    const at = n % SIZE;
    return this.#n[at] === n && this.#late[at] === 1;
  }
}

/** @typedef {"cpu" | "memory" | "network"} Metric */

/** @param {number} bytes */
function perSecond(bytes) {
  const units = ["B/s", "kB/s", "MB/s", "GB/s"];
  let unit = 0;
  let n = bytes;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${n.toFixed(unit > 0 && n < 10 ? 1 : 0)} ${units[unit]}`;
}

/**
 * @param {Metric} metric
 * @param {Point} point
 */
export function inWords(metric, point) {
  if (Number.isNaN(point[metric])) {
    return "unknown";
  }
  return metric === "network" ? perSecond(point.network) : `${point[metric].toFixed(0)} %`;
}
