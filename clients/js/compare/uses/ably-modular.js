import { BaseRealtime, FetchRequest, WebSocketTransport } from "ably/modular";

const client = new BaseRealtime({ authUrl: "/token", plugins: { FetchRequest, WebSocketTransport } });
const channel = client.channels.get("chat.room");
channel.subscribe((m) => console.log(m.data));
channel.publish("said", { text: "hello" });
