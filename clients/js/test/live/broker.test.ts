import { readdirSync, readFileSync } from "node:fs";
import { expect, test, vi } from "vitest";
import { startBroker } from "../support/broker.js";

test("the broker of the tests keeps its address and data over kill -9", async () => {
  await using broker = await startBroker();
  const { url, admin, pid } = broker;
  const topic = `${url}/v1/topics/room.1/messages`;
  const stored = await fetch(topic, { method: "POST", body: "hello" });
  expect(stored.status).toBe(200);

  await broker.kill();
  expect(broker.pid).toBe(0);
  await expect(fetch(topic)).rejects.toThrow();

  await broker.restart();
  expect(broker.url).toBe(url);
  expect(broker.admin).toBe(admin);
  expect(broker.pid).not.toBe(pid);
  const history = await (await fetch(`${topic}?from=earliest`)).text();
  expect(history).toContain("hello");
  expect(broker.logs).toContain("listens on");
});

/** Stops a process; resolves when each of its threads has, which the signal does not wait for. */
async function stop(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  const tasks = `/proc/${pid}/task`;
  const states = () =>
    readdirSync(tasks).map((task) =>
      readFileSync(`${tasks}/${task}/stat`, "utf8").replace(/^.*\) (.).*/s, "$1"),
    );
  await vi.waitFor(() => expect([...new Set(states())]).toEqual(["T"]), { interval: 1 });
}

test.runIf(process.platform === "linux")(
  "a kill has ended when the supervisor and its broker have",
  async () => {
    await using broker = await startBroker({ dev: true });
    const { broker: child } = await (await fetch(`${broker.url}/dev/processes`)).json();
    const { pid } = broker;
    let ended = false;
    let killed: Promise<void> | undefined;
    try {
      await stop(child); // else it ends as soon as the supervisor is dead
      killed = broker.kill().then(() => {
        ended = true;
      });
      await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow("ESRCH"));
      await new Promise(setImmediate);
      expect(ended).toBe(false);
    } finally {
      process.kill(child, "SIGCONT");
    }
    await killed;
    await broker.restart();
  },
);
