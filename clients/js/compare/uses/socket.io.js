import { io } from "socket.io-client";

const client = io("https://broker.example.com");
client.on("chat.room", (data) => console.log(data));
client.emit("chat.room", { text: "hello" });
