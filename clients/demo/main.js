// Puts the page together. One connection of the SDK serves everything but the left lane.

import { connect } from "/sdk/client.js";
import { chat } from "./chat.js";
import { byId } from "./dom.js";
import { faults } from "./faults.js";
import { bareLane, show, tidewireLane } from "./lanes.js";
import { replay } from "./replay.js";
import { PageSocket } from "./socket.js";
import { terminal } from "./terminal.js";
import { workList } from "./work.js";

const client = connect(location.origin, {
  name: "demo",
  WebSocket: /** @type {import("/sdk/client.js").WebSocketClass} */ (/** @type {unknown} */ (PageSocket)),
});
const live = tidewireLane(client);
const lanes = [bareLane(), live];
show(lanes);
byId("zero").addEventListener("click", () => {
  for (const lane of lanes) {
    lane.reset();
  }
});
faults();
terminal(client);
replay(client, live);
chat(client);
workList(client);
