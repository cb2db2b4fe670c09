// A chat room over several tabs. What people write is shown as text, whatever it is.

import { addLast, byId, make, readsAloud, setText, timeElement } from "./dom.js";

/** @typedef {import("/sdk/client.js").Client} Client */

const TOPIC = "demo.chat";
const KEY = "demo.name";
const LONGEST = 500;

function name() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} now */
function keepName(now) {
  try {
    localStorage.setItem(KEY, now);
  } catch {
    // The next page asks again.
  }
}

/**
 * What a message says. Anybody may publish to the topic, so anything may come.
 * @param {string} payload
 */
function read(payload) {
  try {
    const { name, text } = JSON.parse(payload);
    if (typeof name === "string" && typeof text === "string") {
      return { name: name.slice(0, 40), text: text.slice(0, LONGEST) };
    }
  } catch {
    // It was not written here.
  }
  return { name: "?", text: payload.slice(0, LONGEST) };
}

/** @param {Client} client */
export function chat(client) {
  const list = byId("chat-list");
  const messages = client.subscribe(
    TOPIC,
    (m) => {
      const said = read(m.text());
      addLast(
        list,
        make(
          "li",
          "",
          timeElement(m.time),
          " ",
          make("b", "", said.name),
          " ",
          make("span", "said", said.text),
        ),
        200,
      );
    },
    { from: "last:50" },
  );
  readsAloud(messages, list);

  /** @type {HTMLInputElement} */
  const who = byId("chat-name");
  /** @type {HTMLInputElement} */
  const text = byId("chat-text");
  const note = byId("chat-note");
  who.value = name() || `guest ${100 + Math.floor(Math.random() * 900)}`;
  who.addEventListener("change", () => keepName(who.value.trim()));
  keepName(who.value);
  let waiting = 0;
  const tell = () =>
    setText(
      note,
      waiting ? `${waiting} on the way. Nothing is lost: it is sent when the broker can be reached.` : "",
    );
  byId("chat-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const message = { name: who.value.trim() || "guest", text: text.value.trim() };
    if (!message.text) {
      return;
    }
    text.value = "";
    waiting++;
    const slow = setTimeout(tell, 300);
    try {
      await client.publish(TOPIC, message);
      waiting--;
      tell();
    } catch (error) {
      waiting--;
      setText(note, `Not sent: ${/** @type {Error} */ (error).message}`);
    }
    clearTimeout(slow);
  });
}
