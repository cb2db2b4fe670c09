import { accessSync, constants } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { delimiter, join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { describe } from "vitest";

/** Where the bundles of this run are; set by setup-chromium.ts. */
export const SDK = "TIDEWIRE_SDK_DIR";

const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The browser's program: CHROME_PATH, or what is on the PATH. */
export function chromiumPath(): string | undefined {
  if (process.env.CHROME_PATH) return process.env.CHROME_PATH;
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const directories = (process.env.PATH ?? "").split(delimiter);
  return directories.flatMap((directory) => names.map((name) => join(directory, name))).find(executable);
}

function executable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A `describe` that is skipped where there is no browser; setup-chromium.ts says so, and fails where CI is set. */
export const inBrowser = describe.skipIf(!chromiumPath());

/**
 * Starts the browser. Whoever starts it closes it; it ends with this process in any
 * case. With `cache` it has a back-forward cache, which playwright switches off.
 */
export async function launchChromium(args: string[] = [], { cache = false } = {}): Promise<Browser> {
  return chromium.launch({
    executablePath: chromiumPath()!,
    headless: true,
    args: [...flags, ...args],
    ignoreDefaultArgs: cache ? ["--disable-back-forward-cache"] : [],
  });
}

/** A server of pages: an origin of its own, with storage of its own. */
export interface Site extends AsyncDisposable {
  /** Such as `http://localhost:40001`. */
  readonly url: string;
  /** Serves a page under a path, and gives its address. Another one under the same path replaces it. */
  page(path: string, html: string): string;
  close(): Promise<void>;
}

/**
 * Starts a server that gives what `page` was given, and the SDK under `/sdk/`
 * (`import { connect } from "/sdk/client.js"`).
 */
export async function startSite(): Promise<Site> {
  const pages = new Map<string, string>();
  const server = createServer(async (request, response) => {
    const path = new URL(request.url ?? "/", "http://site").pathname;
    const page = path === "/favicon.ico" ? "" : pages.get(path);
    const sdk = /^\/sdk\/([\w.-]+\.js)$/.exec(path);
    const file = sdk
      ? await readFile(join(process.env[SDK] ?? "", sdk[1]!)).catch(() => undefined)
      : undefined;
    const type = sdk || path.endsWith(".js") ? "text/javascript" : "text/html";
    const body = page ?? file;
    response.writeHead(body === undefined ? 404 : 200, { "content-type": `${type}; charset=utf-8` });
    response.end(body);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const url = `http://localhost:${(server.address() as AddressInfo).port}`;
  const close = async () => {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  };
  return {
    url,
    page(path, html) {
      pages.set(path, html);
      return url + path;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Wraps a module script into a page. */
export function script(code: string): string {
  return `<!doctype html><meta charset="utf-8"><title>test</title><body></body><script type="module">${code}</script>`;
}

/** Collects what a page writes and what goes wrong in it, for the log of a failure. */
export function watch(page: Page): string[] {
  const lines: string[] = [];
  page.on("console", (message) => lines.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => lines.push(`error: ${error.stack ?? error.message}`));
  return lines;
}
