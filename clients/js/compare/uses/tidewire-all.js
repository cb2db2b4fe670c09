import { connect } from "@tidewire/client";

const client = connect("https://broker.example.com");
client.subscribe("chat.>", (m) => console.log(m.text()), { from: localStorage.getItem("position") ?? "new" });
client.publish("chat.room", { text: "hello" });
client.consume("mailer", "orders.>", (m) => console.log(m.json()));
