import { wsconnect } from "@nats-io/nats-core";

const client = await wsconnect({ servers: "wss://broker.example.com" });
client.subscribe("chat.>", { callback: (_, m) => console.log(m.string()) });
client.publish("chat.room", JSON.stringify({ text: "hello" }));
