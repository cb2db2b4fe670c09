// Counts the numbers of one lane. It knows nothing of sockets or of the SDK: it
// is given the running number of each payload, and says what is missing.

/**
 * @typedef {"next" | "filled" | "repeated"} Verdict next: the highest so far;
 * filled: it closes a hole; repeated: it was here before.
 *
 * @typedef {object} Kept what a page writes down to go on counting after a reload
 * @property {number} first
 * @property {number} highest
 * @property {number} time
 * @property {number} received
 * @property {number} missed
 * @property {number} repeated
 * @property {number} outOfOrder
 * @property {[number, number][]} holes
 */

/** Older holes are forgotten one by one: their numbers stay counted as missed. */
const MOST_HOLES = 1000;

export class Counter {
  /** The number that the lane began with; 0 before it came. */
  first = 0;
  highest = 0;
  /** The time in the payload of the highest number. */
  time = 0;
  /** Different numbers that came. */
  received = 0;
  /** Numbers between the first and the highest that did not come. */
  missed = 0;
  /** Numbers that came again. */
  repeated = 0;
  /** Numbers that came after a higher one. */
  outOfOrder = 0;
  /**
   * What is missing: ranges from, through, in ascending order.
   * @type {[number, number][]}
   */
  holes = [];

  /** @param {Kept | null} [kept] */
  constructor(kept) {
    if (kept) {
      Object.assign(this, kept);
    }
  }

  /**
   * Counts one message.
   * @param {number} n its running number
   * @param {number} time when it was made, in milliseconds
   * @returns {Verdict}
   */
  see(n, time) {
    if (this.first === 0 || (n < this.highest && time > this.time)) {
      this.#begin(n, time); // a lower number made later: another feed began, from 1
      return "next";
    }
    if (n <= this.highest) {
      return this.#again(n);
    }
    if (n > this.highest + 1) {
      this.missed += n - this.highest - 1;
      this.holes.push([this.highest + 1, n - 1]);
      if (this.holes.length > MOST_HOLES) {
        this.holes.shift();
      }
    }
    this.highest = n;
    this.time = time;
    this.received++;
    return "next";
  }

  /** @param {number} n */
  #again(n) {
    const at = this.#holeAt(n);
    const hole = this.holes[at];
    if (!hole) {
      this.repeated++;
      return "repeated";
    }
    /** @type {[number, number][]} */
    const left = [];
    if (hole[0] < n) {
      left.push([hole[0], n - 1]);
    }
    if (n < hole[1]) {
      left.push([n + 1, hole[1]]);
    }
    this.holes.splice(at, 1, ...left);
    this.missed--;
    this.outOfOrder++;
    this.received++;
    return "filled";
  }

  /**
   * @param {number} n
   * @param {number} time
   */
  #begin(n, time) {
    Object.assign(this, { first: n, highest: n, time, received: 1 });
    Object.assign(this, { missed: 0, repeated: 0, outOfOrder: 0, holes: [] });
  }

  /**
   * What is known of a number: "" if it lies outside of what was counted.
   * @param {number} n
   * @returns {"received" | "missed" | ""}
   */
  what(n) {
    if (this.first === 0 || n < this.first || n > this.highest) {
      return "";
    }
    return this.#holeAt(n) < 0 ? "received" : "missed";
  }

  /** @param {number} n */
  #holeAt(n) {
    let low = 0;
    let high = this.holes.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const [from, through] = /** @type {[number, number]} */ (this.holes[middle]);
      if (n < from) {
        high = middle - 1;
      } else if (n > through) {
        low = middle + 1;
      } else {
        return middle;
      }
    }
    return -1;
  }
}
