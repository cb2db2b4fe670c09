// Ten minutes back, at ten times the speed. A subscription may begin at a time: the
// broker reads its log from there on, and the handler takes what comes at its pace.

import { byId, pause, setText, timeOfDay } from "./dom.js";
import { TOPIC } from "./feed.js";
import { Lane } from "./lane.js";

/**
 * @typedef {import("/sdk/client.js").Client} Client
 * @typedef {import("/sdk/client.js").Message} Message
 */

const SPEED = 10;
/** So near to the newest message the replay has reached the present. */
const LIVE = 300;

/** @param {number} seconds */
function ago(seconds) {
  const s = Math.max(0, Math.round(seconds));
  return s === 0 ? "now" : `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")} ago`;
}

class Replay {
  #client;
  #live;
  #lane = new Lane(byId("replay-lane"));
  /** @type {HTMLInputElement} */
  #slider = byId("replay-slider");
  #stop = new AbortController();
  #dragging = false;
  #now = 0;

  /**
   * @param {Client} client
   * @param {Lane} live whose newest message is the present
   */
  constructor(client, live) {
    this.#client = client;
    this.#live = live;
    this.#slider.addEventListener("input", () => {
      this.#dragging = true;
      this.#label();
    });
    this.#slider.addEventListener("change", () => this.#start());
    byId("replay-start").addEventListener("click", () => {
      if (this.#slider.value === "0") {
        this.#slider.value = this.#slider.min;
      }
      this.#start();
    });
    byId("replay-stop").addEventListener("click", () => this.#end("stopped"));
    this.#lane.state = "stopped";
    this.#label();
    requestAnimationFrame(() => this.#draw());
  }

  /** What the slider says, in words. */
  #label() {
    const text = ago(-Number(this.#slider.value));
    setText(byId("replay-position"), text);
    this.#slider.ariaValueText = text;
  }

  #start() {
    this.#dragging = false;
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    const present = this.#live.newest || Date.now();
    const from = present + Number(this.#slider.value) * 1000;
    this.#lane.reset();
    this.#lane.state = "replaying";
    const pace = this.#pace();
    this.#client.subscribe(TOPIC, (m) => this.#handle(m, pace, signal), {
      from: new Date(from).toISOString(),
      signal,
    });
  }

  /** How long to wait for a message: the first sets the clock of the replay. */
  #pace() {
    let begin = 0;
    const began = performance.now();
    return (/** @type {number} */ time) => {
      begin ||= time - (performance.now() - began) * SPEED;
      return (time - begin) / SPEED - (performance.now() - began);
    };
  }

  /**
   * @param {Message} m
   * @param {(time: number) => number} pace
   * @param {AbortSignal} signal
   */
  async #handle(m, pace, signal) {
    const wait = pace(m.time.getTime());
    if (wait > 8) {
      await pause(wait); // the broker sends more only as the handler goes on
    }
    if (signal.aborted) {
      return;
    }
    this.#now = this.#lane.take(m.text())?.time ?? this.#now;
    if (this.#now >= this.#live.newest - LIVE) {
      this.#end("live");
    }
  }

  /** @param {string} state */
  #end(state) {
    this.#stop.abort();
    this.#lane.state = state;
    if (state === "live") {
      this.#slider.value = "0";
      this.#label();
    }
  }

  #draw() {
    requestAnimationFrame(() => this.#draw());
    if (this.#lane.state === "replaying" && this.#now > 0 && !this.#dragging) {
      this.#slider.value = String(Math.round((this.#now - this.#live.newest) / 1000));
      this.#label();
    }
    setText(byId("replay-clock"), this.#now ? timeOfDay(this.#now) : "");
    this.#lane.draw(this.#lane.counter.highest);
  }
}

/**
 * @param {Client} client
 * @param {Lane} live
 */
export function replay(client, live) {
  new Replay(client, live);
}
