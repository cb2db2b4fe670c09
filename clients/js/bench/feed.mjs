// A small server that speaks just enough of each protocol to send the same small
// messages to the page as fast as it takes them. What it sends is prepared before:
// finished WebSocket frames in large pieces, which cost this process next to nothing.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

/** As many as the real servers put into a frame: Centrifugo merges 16, NATS cuts at 4,096 bytes for browsers. */
const merged = 16;
const natsFrame = 4096;
const piece = 1 << 20;

/** A frame for each message is so slow that fewer of them do. */
export const single = 20_000;

const utf8 = new TextEncoder();
const concat = (...parts) => Buffer.concat(parts.map((p) => (typeof p === "string" ? Buffer.from(p) : p)));

/** A WebSocket frame of a server: no mask. */
function frame(payload, binary = true) {
  const { length } = payload;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
  head[0] = binary ? 0x82 : 0x81;
  if (length < 126) {
    head[1] = length;
  } else if (length < 65536) {
    head[1] = 126;
    head.writeUInt16BE(length, 2);
  } else {
    head[1] = 127;
    head.writeUInt32BE(length, 6);
  }
  return concat(head, payload);
}

function varint(n) {
  const bytes = [];
  for (; n > 127; n = Math.floor(n / 128)) bytes.push((n & 127) | 128);
  return Uint8Array.from([...bytes, n]);
}
const field = (number, bytes) => concat(Uint8Array.of((number << 3) | 2), varint(bytes.length), bytes);
const delimited = (bytes) => concat(varint(bytes.length), bytes);

/** Groups by number. */
function* groups(messages, size) {
  for (let i = 0; i < messages.length; i += size) yield messages.slice(i, i + size);
}

/** Groups by bytes: whole parts as long as they fit. */
function* cuts(bytes, size) {
  for (let i = 0; i < bytes.length; i += size) yield bytes.subarray(i, i + size);
}

const centrifugeJSON = (payload, i) =>
  utf8.encode(`{"push":{"channel":"a.b","pub":{"data":${payload},"offset":${i + 1}}}}`);
const centrifugeProto = (payload, i) =>
  delimited(
    field(
      4,
      concat(
        field(2, utf8.encode("a.b")),
        field(4, concat(field(4, payload), Uint8Array.of(48), varint(i + 1))),
      ),
    ),
  );
const natsMessage = (payload) => concat(`MSG a.b 1 ${payload.length}\r\n`, payload, "\r\n");

/** What each path sends for n messages, as finished frames. */
const prepare = {
  "/bare/one": ({ payloads }) => payloads.slice(0, single).map((p) => frame(p)),
  "/bare/tidewire": ({ frames }) => frames.map((f) => frame(f)),
  "/centrifuge": ({ payloads }, size = merged) => {
    const lines = payloads.map((p, i) => centrifugeJSON(Buffer.from(p).toString(), i));
    return [...groups(lines, size)].map((g) =>
      frame(concat(...g.flatMap((l) => [l, "\n"]).slice(0, -1)), false),
    );
  },
  "/centrifuge-protobuf": ({ payloads }, size = merged) =>
    [...groups(payloads.map(centrifugeProto), size)].map((g) => frame(concat(...g))),
  "/nats": ({ payloads }, size = natsFrame) =>
    [...cuts(Buffer.concat(payloads.map(natsMessage)), size)].map((g) => frame(g)),
};
prepare["/centrifuge/large"] = (what) => prepare["/centrifuge"](what, 700);
prepare["/centrifuge-protobuf/large"] = (what) => prepare["/centrifuge-protobuf"](what, 700);
prepare["/nats/large"] = (what) => prepare["/nats"](what, 64 << 10);

/** Begins each conversation; calls `go` when the client has subscribed. */
const greet = {
  bare: (_socket, go) => go(),
  centrifuge(socket, go) {
    socket.on("message", (data) => {
      for (const line of data.toString().trim().split("\n")) {
        const { id, connect, subscribe } = JSON.parse(line);
        if (connect) socket.send(JSON.stringify({ id, connect: { client: "c", version: "0" } }));
        if (subscribe) {
          socket.send(JSON.stringify({ id, subscribe: {} }));
          go();
        }
      }
    });
  },
  "centrifuge-protobuf"(socket, go) {
    let commands = 0;
    socket.on("message", (data) => {
      for (let rest = data; rest.length > 0; rest = rest.subarray(1 + rest[0])) {
        const id = rest[2]; // a short Command: its length, the tag of its id, its id
        const connect = commands++ === 0;
        const result = connect ? field(1, utf8.encode("c")) : new Uint8Array(0);
        socket.send(delimited(concat(Uint8Array.of(8, id), field(connect ? 5 : 6, result))));
        if (!connect) go();
      }
    });
  },
  nats(socket, go) {
    const info = {
      server_id: "s",
      server_name: "s",
      version: "2.12.0",
      proto: 1,
      headers: true,
      max_payload: 1 << 20,
    };
    socket.send(Buffer.from(`INFO ${JSON.stringify(info)}\r\n`));
    socket.on("message", (data) => {
      const text = data.toString();
      if (text.includes("PING")) socket.send(Buffer.from("PONG\r\n"));
      if (text.includes("SUB ")) go();
    });
  },
};

/** Writes pieces as fast as the other side takes them. */
function pour(socket, pieces, last) {
  const raw = socket._socket;
  let next = 0;
  const write = () => {
    while (next < pieces.length) if (!raw.write(pieces[next++])) return raw.once("drain", write);
    if (last) socket.send(last);
  };
  write();
}

/** Starts it. `what` has the payloads, and the frames in which the broker has sent them. */
export async function startFeed(what) {
  const ready = new Map();
  const pieces = (path) => {
    if (!ready.has(path)) ready.set(path, [...groupBytes(prepare[path](what))]);
    return ready.get(path);
  };
  for (const path of Object.keys(prepare)) pieces(path);
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://feed");
    const bytes = url.searchParams.get("bytes");
    response.writeHead(200, {
      "content-type": bytes ? "application/octet-stream" : "text/html",
      "cache-control": "no-store",
    });
    response.end(bytes ? Buffer.alloc(Number(bytes)) : "<!doctype html><title>bench</title>");
  });
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  sockets.on("connection", (socket, request) => {
    const { pathname } = new URL(request.url, "http://feed");
    const kind = pathname.split("/")[1];
    if (kind === "steady") return steady(socket, new URL(request.url, "http://feed").searchParams);
    greet[kind](socket, () => pour(socket, pieces(pathname), kind === "bare" && "end"));
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** Sends so many messages a second, as long as the socket is open. */
function steady(socket, query) {
  const payload = frame(Buffer.alloc(Number(query.get("bytes")), "x"));
  const every = 20;
  const batch = Buffer.concat(Array(Math.round((Number(query.get("rate")) * every) / 1000)).fill(payload));
  const timer = setInterval(() => socket._socket.write(batch), every);
  socket.on("close", () => clearInterval(timer));
}

/** Joins frames to pieces of about a megabyte. */
function* groupBytes(frames) {
  let waiting = [];
  let size = 0;
  for (const f of frames) {
    waiting.push(f);
    size += f.length;
    if (size < piece) continue;
    yield Buffer.concat(waiting);
    waiting = [];
    size = 0;
  }
  if (size) yield Buffer.concat(waiting);
}
