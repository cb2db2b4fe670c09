// What a page that uses the core must load, in bytes: one bundle, minified, as
// gzip -9 leaves it.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { bundling, root } from "./build.mjs";

export const limit = 8_192;

/** Connects, publishes, subscribes with resume, works as a consumer; the codec is in all of them. */
const page = `
import { connect } from "./src/index.ts";
const client = connect("https://example.org");
client.subscribe("chat.>", (m) => console.log(m.text()), { from: localStorage.getItem("position") ?? "new" });
client.publish("chat.room", { text: "hello" });
client.consume("mailer", "orders.>", (m) => console.log(m.json()));
`;

/** The size, in bytes. */
export async function measure() {
  const stdin = { contents: page, resolveDir: root, sourcefile: "page.js" };
  const { outputFiles } = await build({ ...bundling, stdin, write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}
