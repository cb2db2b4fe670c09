// A work list: jobs, two workers that share a consumer, and what becomes of jobs
// that always fail. What the workers report goes over a topic too, so every tab
// shows the same.

import { byId, copies, make, pause, setText } from "./dom.js";

/**
 * @typedef {import("/sdk/client.js").Client} Client
 * @typedef {import("/sdk/client.js").Delivery} Delivery
 * @typedef {"waiting" | "working" | "failed" | "done" | "dead"} State
 * @typedef {{ id: string, number: number, state: State, attempt: number, worker: string }} Report
 * @typedef {{ node: HTMLElement, number: number, time: number }} Row
 */

const JOBS = "demo.jobs";
const REPORTS = "demo.work";
const CONSUMER = "demo-work";
const ATTEMPTS = 3;
const MOST_ROWS = 30;

/** @type {Record<State, string>} */
const WORDS = { waiting: "waiting", working: "in work", failed: "failed", done: "done", dead: "dead letter" };

/** The jobs on the page, by message id. @type {Map<string, Row>} */
const rows = new Map();
/** The dead letters on the page, by the id of their job. @type {Map<string, { node: HTMLElement, time: number }>} */
const letters = new Map();
let highest = 0;

/**
 * The row of a job. The highest number stands first, and the lowest goes when
 * there are too many.
 * @param {string} id
 * @param {number} number
 */
function rowOf(id, number) {
  let row = rows.get(id);
  if (!row) {
    const node = make("li", "job", make("b", "", `Job ${number}`), make("span", "what"));
    row = { node, number, time: 0 };
    rows.set(id, row);
    highest = Math.max(highest, number);
    const sorted = [...rows].sort(([, x], [, y]) => y.number - x.number);
    const after = sorted[sorted.findIndex(([key]) => key === id) + 1];
    byId("jobs").insertBefore(node, after ? after[1].node : null);
    for (const [key, old] of sorted.slice(MOST_ROWS)) {
      old.node.remove();
      rows.delete(key);
    }
  }
  return row;
}

/**
 * @param {Report} report
 * @param {number} time
 */
function show({ id, number, state, attempt, worker }, time) {
  const row = rowOf(id, number);
  const letter = letters.get(id);
  if (letter && (state === "working" || state === "done") && time > letter.time) {
    letter.node.remove(); // it was given back, and is a job again
    letters.delete(id);
  } else if (state !== "dead" && (letter || time < row.time)) {
    return; // the report of the last failure may be stored behind the dead letter
  }
  row.time = Math.max(row.time, time);
  row.node.dataset.state = state;
  const more = worker ? ` by ${String(worker).slice(0, 9)}, attempt ${Number(attempt)}` : "";
  setText(/** @type {Node} */ (row.node.lastChild), WORDS[state] + more);
  tally();
}

function tally() {
  const of = (/** @type {State} */ state) =>
    [...rows.values()].filter((row) => row.node.dataset.state === state).length;
  setText(byId("jobs-done"), of("done"));
  setText(byId("jobs-dead"), letters.size);
}

/**
 * What a payload says, or undefined: anybody may publish to these topics.
 * @param {string} payload
 */
function read(payload) {
  try {
    const said = JSON.parse(payload);
    return Number.isInteger(said.number) && said.number > 0 && said.number < 1e9 ? said : undefined;
  } catch {
    return undefined;
  }
}

/** @param {number} number */
function mustFail(number) {
  const failing = /** @type {HTMLInputElement} */ (byId("failing")).checked;
  return failing && (number % 10 === 7 || Math.random() < 0.3);
}

/**
 * One of the two workers of this tab.
 * @param {Client} client
 * @param {string} name
 */
function work(client, name) {
  const settings = { backoffBase: 400, backoffCap: 2000, maxDeliver: ATTEMPTS, ackWait: 10_000 };
  client.consume(
    CONSUMER,
    JOBS,
    async (job) => {
      const number = read(job.text())?.number;
      if (number === undefined) {
        return job.reject("this is no job");
      }
      const report = (/** @type {State} */ state) =>
        tell(client, { id: job.id, number, state, attempt: job.attempt, worker: name });
      report("working");
      await pause(250 + Math.random() * 250);
      if (mustFail(number)) {
        report("failed");
        throw new Error(`job ${number} failed`);
      }
      await job.ack();
      report("done");
    },
    { settings },
  );
}

/**
 * @param {Client} client
 * @param {Report} report
 */
function tell(client, report) {
  client.publish(REPORTS, report).catch(() => {}); // only at the end of the page
}

/** @param {Client} client */
function watch(client) {
  const jobs = client.subscribe(
    JOBS,
    (m) => {
      const job = read(m.text());
      if (job && !rows.has(m.id)) {
        show({ id: m.id, number: job.number, state: "waiting", attempt: 0, worker: "" }, m.time.getTime());
      }
    },
    { from: `last:${MOST_ROWS}` },
  );
  jobs.on("caughtup", () => {
    /** @type {HTMLButtonElement} */ (byId("add-jobs")).disabled = false; // the next number is known
  });
  client.subscribe(
    REPORTS,
    (m) => {
      const report = read(m.text());
      if (report && Object.hasOwn(WORDS, report.state)) {
        show(report, m.time.getTime());
      }
    },
    { from: "last:200" },
  );
  client.subscribe(
    `$dead.${CONSUMER}`,
    (m) => {
      const id = m.headers["tidewire-dead-id"] ?? m.id;
      const number = read(m.text())?.number ?? 0;
      const row = rows.get(id);
      if (row && row.time > m.time.getTime() && row.node.dataset.state !== "failed") {
        return; // it was given back since
      }
      const attempt = Number(m.headers["tidewire-dead-attempts"]);
      const text = `Job ${number}, after ${attempt} attempts: ${m.headers["tidewire-dead-reason"] ?? ""}`;
      const node = make("li", "", text);
      letters.get(id)?.node.remove();
      letters.set(id, { node, time: m.time.getTime() });
      byId("letters").prepend(node);
      show({ id, number, state: "dead", attempt, worker: "" }, m.time.getTime());
    },
    { from: "last:20" },
  );
}

/** @param {Client} client */
export function workList(client) {
  const command = byId("redrive-command");
  command.textContent = `tidewire dead redrive ${CONSUMER} --all`;
  copies(byId("redrive-copy"), command);
  watch(client);
  work(client, "A");
  work(client, "B");
  byId("add-jobs").addEventListener("click", () => {
    const first = highest + 1;
    for (let number = first; number < first + 10; number++) {
      client
        .publish(JOBS, { number })
        .catch((error) => setText(byId("work-note"), `Not added: ${error.message}`));
    }
    highest = first + 9;
  });
}
