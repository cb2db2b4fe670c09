import { TidewireError } from "./errors.js";

const example = "write it like http://localhost:7070";

/** Reads an address as people write it, and returns that of the WebSocket. */
export function address(text: string): string {
  let url: URL;
  try {
    url = new URL(text, globalThis.location?.href);
  } catch {
    throw new TidewireError("bad_url", `"${text}" is not a URL: ${example}`);
  }
  url.protocol = url.protocol.replace("http", "ws");
  if (!/^wss?:$/.test(url.protocol))
    throw new TidewireError("bad_url", `"${text}" is no address of a broker: ${example}`);
  if (url.pathname === "/") url.pathname = "/v1/ws";
  url.hash = "";
  return url.href;
}

/** Codes of close frames from 3500 on that concern the connection as a whole. */
const codes = [
  "unauthorized",
  "forbidden",
  "origin_not_allowed",
  "host_not_allowed",
  "bad_frame",
  "token_expired",
];

/** Says what a close means: by its number, what the broker said, and whether the connection was open before. */
export function diagnose(url: string, close: number, reason: string, opened: boolean): TidewireError {
  const { host } = new URL(url);
  if (close >= 3000 && close < 5000) {
    const why = reason || `it closed with ${close}`;
    return new TidewireError(
      codes[close - 3500] ?? "refused",
      `the broker at ${host} says: ${why}`,
      close % 1000 < 500,
    );
  }
  if (opened)
    return new TidewireError(
      "connection_lost",
      `the connection to ${host} was lost (${close})`,
      comesBack(close),
    );
  if (globalThis.location?.protocol === "https:" && url.startsWith("ws:")) {
    const hint = `this page came by https, so the browser lets it connect to wss:// and https:// only: give ${host} a certificate, or put it behind a proxy that has one`;
    return new TidewireError("insecure", hint, true);
  }
  return new TidewireError(
    "unreachable",
    `no broker answers at ${host}: is it running, and is that its address?`,
    true,
  );
}

/** The verdict of the close codes that WebSocket itself has. */
function comesBack(close: number): boolean {
  return close !== 1002 && close !== 1003 && (close < 1007 || close > 1010);
}
