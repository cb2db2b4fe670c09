import { expect, test } from "vitest";
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
