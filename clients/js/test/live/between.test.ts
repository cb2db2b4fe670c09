import { expect, test } from "vitest";
import WebSocket from "ws";
import { type Client, connect, type Message } from "../../src/index.js";
import { startBroker } from "../support/broker.js";

test("what is subscribed between Connect and Welcome is asked for, too", async () => {
  await using broker = await startBroker();
  let client: Client | undefined;
  const got: Message[] = [];
  const ready: Promise<void>[] = [];
  /** Right behind the first frame, which is Connect, the program subscribes. */
  class Busy extends WebSocket {
    override send(data: never): void {
      super.send(data);
      if (ready.length > 0) return;
      ready.push(client!.subscribe("late.a", (m) => got.push(m)).ready);
      ready.push(client!.consume("late", "late.b", (m) => got.push(m)).ready);
    }
  }
  client = connect(broker.url, { WebSocket: Busy });
  await client.ready;
  await Promise.all(ready);
  await client.publish("late.a", "1");
  await client.publish("late.b", "2");
  await expect.poll(() => got.map((m) => m.text()).sort()).toEqual(["1", "2"]);
  await client.close();
});
