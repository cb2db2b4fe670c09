// The buttons that break something, and the processes that they break.

import { byId, pause, setText, timeOfDay } from "./dom.js";
import { cut, goOnline, isOnline, slowDown } from "./socket.js";

/** @typedef {{ supervisor: number, broker: number, started: string, starts: number }} Processes */

/** How long a killed broker may take to come back before the page says so. */
const PATIENCE = 15_000;

const log = byId("log");

/** @param {string} text */
function say(text) {
  setText(log, `${timeOfDay(Date.now())}: ${text}`);
}

/** @returns {Promise<Processes | undefined>} */
async function processes() {
  try {
    const answer = await fetch("/dev/processes", { cache: "no-store" });
    if (answer.status === 404) {
      byId("kill").ariaDisabled = "true";
      say("On this system nobody starts the broker again, so the page does not kill it.");
    }
    return answer.ok ? await answer.json() : undefined;
  } catch {
    return undefined; // the broker is down
  }
}

/** Shows both process ids, if there are any. */
async function look() {
  const now = await processes();
  if (now) {
    setText(byId("supervisor-pid"), now.supervisor);
    setText(byId("broker-pid"), now.broker);
    setText(byId("starts"), now.starts);
  }
  return now;
}

async function kill() {
  const before = await look();
  if (!before) {
    say("The broker does not answer. It may be starting.");
    return;
  }
  const at = performance.now();
  try {
    await fetch("/dev/kill", { method: "POST", headers: { "Tidewire-Dev": "1" } });
  } catch {
    // It was killed before it could answer.
  }
  setText(byId("broker-pid"), "killed");
  say(`Killed the broker, process ${before.broker}.`);
  while (performance.now() - at < PATIENCE) {
    const now = await processes();
    if (now && now.broker !== before.broker) {
      await look();
      const seconds = ((performance.now() - at) / 1000).toFixed(1);
      say(`Killed the broker, process ${before.broker}. Process ${now.broker} answered ${seconds} s later.`);
      return;
    }
    await pause(100);
  }
  say("The broker has not come back. See the terminal that it was started in.");
}

/**
 * While the action runs the button does nothing. It keeps the focus.
 * @param {string} id
 * @param {() => unknown} action
 */
function button(id, action) {
  const node = byId(id);
  node.addEventListener("click", async () => {
    if (node.ariaDisabled === "true") {
      return;
    }
    node.ariaDisabled = "true";
    try {
      await action();
    } finally {
      node.ariaDisabled = "false";
    }
  });
}

function toggleOnline() {
  goOnline(!isOnline());
  byId("offline").ariaPressed = String(!isOnline());
  document.documentElement.classList.toggle("is-offline", !isOnline());
  say(isOnline() ? "Back online." : "Offline: nothing passes. Press again to go online.");
}

async function slow() {
  say("The page stalls: 150 of every 200 milliseconds, for 10 seconds.");
  await slowDown(10_000);
  say("The page runs freely again.");
}

function cutAll() {
  cut();
  say("Cut all connections of this page.");
}

export function faults() {
  button("kill", kill);
  button("offline", toggleOnline);
  button("cut", cutAll);
  button("slow", slow);
  button("reload", () => location.reload());
  look();
  setInterval(() => {
    if (document.visibilityState === "visible" && byId("kill").ariaDisabled !== "true") {
      look();
    }
  }, 3000);
}
