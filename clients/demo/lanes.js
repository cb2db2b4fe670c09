// The two lanes: the same feed through a bare WebSocket, and through Tidewire.

import { byId, setText } from "./dom.js";
import { TOPIC } from "./feed.js";
import { Lane } from "./lane.js";
import { PageSocket } from "./socket.js";

/**
 * @typedef {import("/sdk/client.js").Client} Client
 * @typedef {import("./counter.js").Kept} Kept
 * @typedef {{ at: number, kept: Kept, position?: string }} Saved
 */

/** What was kept longer ago than this is not gone on with. */
const TOO_OLD = 10 * 60_000;

/**
 * What the lane of an earlier page of this tab has kept.
 * @param {string} key
 * @returns {Saved | null}
 */
function load(key) {
  try {
    const saved = JSON.parse(sessionStorage.getItem(key) ?? "null");
    return saved && Date.now() - saved.at < TOO_OLD ? saved : null;
  } catch {
    return null; // this browser keeps nothing, or it was somebody else's
  }
}

/**
 * @param {string} key
 * @param {Lane} lane
 * @param {string} [position]
 */
function save(key, lane, position) {
  try {
    sessionStorage.setItem(key, JSON.stringify({ at: Date.now(), kept: lane.counter, position }));
  } catch {
    // Nothing can be kept: after a reload the lane begins anew.
  }
}

/**
 * The left lane, as one writes it by hand: it subscribes to what is new, and when
 * the connection is lost it makes another one a second later.
 */
export function bareLane() {
  const lane = new Lane(byId("bare"), load("demo.bare")?.kept);
  const open = () => {
    lane.state = "connecting";
    const socket = new PageSocket(`${location.origin.replace("http", "ws")}/v1/ws`, "tidewire.v1.json");
    socket.onopen = () => {
      socket.send(
        JSON.stringify({ type: "connect", client: "demo-bare", subscriptions: [{ sub: 1, filter: TOPIC }] }),
      );
    };
    socket.onmessage = (event) => {
      const frame = JSON.parse(event.data);
      if (frame.type === "subscribed") {
        lane.state = "open";
      } else if (frame.type === "deliver") {
        for (const message of frame.messages) {
          lane.take(message.payload);
        }
      } else if (frame.type === "ping") {
        socket.send(JSON.stringify({ type: "pong", seq: frame.seq }));
      }
    };
    socket.onclose = () => {
      lane.state = "waiting";
      setTimeout(open, 1000);
    };
  };
  open();
  window.addEventListener("pagehide", () => save("demo.bare", lane));
  return lane;
}

/**
 * The right lane. The position is kept together with the count, so that both are
 * of the same moment when the page is loaded again.
 * @param {Client} client
 */
export function tidewireLane(client) {
  const key = "demo.tidewire";
  const lane = new Lane(byId("tidewire"), load(key)?.kept);
  client.subscribe(TOPIC, (m) => void lane.take(m.text()), {
    store: {
      load: () => load(key)?.position,
      save: (position) => save(key, lane, position),
    },
  });
  lane.state = client.state;
  client.on("state", ({ state }) => {
    lane.state = state;
  });
  return lane;
}

/**
 * Draws the lanes whenever something came, 20 times a second at most, and says
 * now and then what has become of them.
 * @param {Lane[]} lanes
 */
export function show(lanes) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const summary = byId("summary");
  let drawn = 0;
  let head = 0;
  let said = 0;
  let about = "";
  const frame = (/** @type {number} */ now) => {
    requestAnimationFrame(frame);
    if (now - drawn < (calm.matches ? 1000 : 45)) {
      return;
    }
    drawn = now;
    const highest = Math.max(...lanes.map((lane) => lane.counter.highest));
    for (const lane of lanes) {
      if (highest !== head) {
        lane.touch();
      }
      lane.draw(highest);
    }
    head = highest;
    const news = lanes.map((lane) => `${lane.state} ${lane.counter.missed}`).join();
    if (news !== about && now - said > 4000 && head > 0) {
      about = news;
      said = now;
      setText(summary, lanes.map((lane) => lane.words()).join(" "));
    }
  };
  requestAnimationFrame(frame);
}
