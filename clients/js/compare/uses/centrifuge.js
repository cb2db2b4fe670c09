import { Centrifuge } from "centrifuge";

const client = new Centrifuge("wss://broker.example.com/connection/websocket");
const sub = client.newSubscription("chat.room");
sub.on("publication", (ctx) => console.log(ctx.data));
sub.subscribe();
client.connect();
client.publish("chat.room", { text: "hello" });
