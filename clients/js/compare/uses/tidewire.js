import { connect } from "@tidewire/client";

const client = connect("https://broker.example.com");
client.subscribe("chat.>", (m) => console.log(m.text()));
client.publish("chat.room", { text: "hello" });
