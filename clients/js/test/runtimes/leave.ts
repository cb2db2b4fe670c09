// A program that closes its client ends by itself: nothing is left that a runtime
// waits for, not even for the hour that close could have taken.
import type { ConnectOptions } from "../../src/index.js";

const name = "@tidewire/client";
const { connect } = (await import(name)) as typeof import("../../src/index.js");
const options: ConnectOptions = process.env.TIDEWIRE_WS ? { WebSocket: (await import("ws")).WebSocket } : {};
const client = connect(process.env.TIDEWIRE_URL ?? "", options);
await client.subscribe("runtime.leave", () => {}).ready;
await client.publish("runtime.leave", "hello");
await client.close({ timeout: 3_600_000 });
console.log("closed");
