import { Realtime } from "ably";

const client = new Realtime({ authUrl: "/token" });
const channel = client.channels.get("chat.room");
channel.subscribe((m) => console.log(m.data));
channel.publish("said", { text: "hello" });
