// Messages from a terminal: the command to copy, and what came.

import { addLast, byId, copies, make, readsAloud, timeElement } from "./dom.js";

/** @typedef {import("/sdk/client.js").Client} Client */

const TOPIC = "demo.curl";

/** @param {Client} client */
export function terminal(client) {
  const command = byId("curl-command");
  command.textContent = `curl -d hello ${location.origin}/v1/topics/${TOPIC}/messages`;
  copies(byId("curl-copy"), command);
  const list = byId("curl-list");
  const messages = client.subscribe(
    TOPIC,
    (m) => {
      addLast(list, make("li", "", timeElement(m.time), " ", make("span", "said", m.text())), 50);
    },
    { from: "last:5" },
  );
  readsAloud(messages, list);
}
