import { jetstream } from "@nats-io/jetstream";
import { wsconnect } from "@nats-io/nats-core";

const client = await wsconnect({ servers: "wss://broker.example.com" });
const js = jetstream(client);
const consumer = await js.consumers.get("chat", { filter_subjects: "chat.>" });
await consumer.consume({ callback: (m) => console.log(m.string()) });
await js.publish("chat.room", JSON.stringify({ text: "hello" }));
