import mqtt from "mqtt";

const client = mqtt.connect("wss://broker.example.com");
client.on("message", (_topic, payload) => console.log(payload.toString()));
client.subscribe("chat/#", { qos: 1 });
client.publish("chat/room", JSON.stringify({ text: "hello" }), { qos: 1 });
