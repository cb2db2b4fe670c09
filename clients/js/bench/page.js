// What runs in the page. Each function takes one turn and returns milliseconds.
import { wsconnect } from "@nats-io/nats-core";
import { Centrifuge } from "centrifuge";
import { Centrifuge as CentrifugeProtobuf } from "centrifuge/build/protobuf";
import { connect } from "../src/index.ts";

let seen = 0; // nothing is optimised away

/** Counts messages; resolves with the time from the first one to the last. */
function counter(n) {
  let count = 0;
  let first = 0;
  let done;
  const elapsed = new Promise((resolve) => {
    done = resolve;
  });
  const one = (payload) => {
    if (count++ === 0) first = performance.now();
    seen += payload.length;
    if (count === n) done(performance.now() - first);
  };
  return { elapsed, one };
}

function bare(url) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    let first = 0;
    socket.onmessage = ({ data }) => {
      first ||= performance.now();
      if (typeof data === "string") {
        socket.close();
        return resolve(performance.now() - first);
      }
      seen += new Uint8Array(data).slice().length;
    };
  });
}

async function tidewire(url, n, read = (m) => m.bytes) {
  const client = connect(url);
  const { elapsed, one } = counter(n);
  client.subscribe("a.*", (m) => one(read(m)), { from: "earliest" });
  const ms = await elapsed;
  client.close();
  return ms;
}

async function centrifuge(Client, url, n) {
  const client = new Client(url);
  const { elapsed, one } = counter(n);
  const sub = client.newSubscription("a.b");
  sub.on("publication", (ctx) => one(ctx.data));
  sub.subscribe();
  client.connect();
  const ms = await elapsed;
  client.disconnect();
  return ms;
}

async function nats(url, n) {
  const client = await wsconnect({ servers: url, reconnect: false });
  const { elapsed, one } = counter(n);
  client.subscribe("a.b", { callback: (_, m) => one(m.data) });
  const ms = await elapsed;
  client.close();
  return ms;
}

/** From nothing to the last of n messages that were missed. */
async function resume(url, from, n) {
  const begin = performance.now();
  const client = connect(url);
  await new Promise((done) => {
    let count = 0;
    client.subscribe("missed.*", (m) => ++count === n && done(m), { from });
  });
  const ms = performance.now() - begin;
  client.close();
  return ms;
}

async function download(url) {
  const begin = performance.now();
  const response = await fetch(url);
  seen += (await response.arrayBuffer()).byteLength;
  return performance.now() - begin;
}

const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));

/** Takes 5 ms for each message, for so long; returns how many it had. */
async function slow(url, seconds) {
  const client = connect(url);
  let count = 0;
  client.subscribe("slow.*", async (m) => {
    await pause(5);
    seen += m.bytes.length;
    count++;
  });
  await pause(1000 * seconds);
  await client.close();
  return count;
}

/** The same without credit: what has arrived waits in a queue of the page. */
async function queued(url, seconds) {
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  const queue = [];
  let count = 0;
  socket.onmessage = (e) => queue.push(e.data);
  const end = performance.now() + 1000 * seconds;
  while (performance.now() < end) {
    const data = queue.shift();
    await pause(5);
    if (!data) continue;
    seen += data.byteLength;
    count++;
  }
  socket.close();
  return count;
}

Object.assign(window, {
  turns: {
    bare,
    tidewire,
    tidewireJSON: (url, n) => tidewire(url, n, (m) => m.data),
    centrifuge: (url, n) => centrifuge(Centrifuge, url, n),
    centrifugeProtobuf: (url, n) => centrifuge(CentrifugeProtobuf, url, n),
    nats,
    resume,
    download,
    slow,
    queued,
  },
  seen: () => seen,
});
