import { TidewireError } from "./errors.js";
/** Reads an address as people write it, and returns that of the WebSocket. */
export function address(text) {
    try {
        const url = new URL(text, globalThis.location?.href);
        url.protocol = url.protocol.replace("http", "ws");
        if (url.pathname === "/")
            url.pathname = "/v1/ws";
        url.hash = "";
        if (url.protocol.startsWith("ws"))
            return url.href;
    }
    catch { }
    throw new TidewireError("bad_url", `"${text}" is no address of a broker: write it like http://localhost:7070`);
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
export function diagnose(url, close, reason, opened) {
    const { host } = new URL(url);
    if (close >= 3000)
        return new TidewireError(codes[close - 3500] ?? "refused", `${host} says: ${reason || close}`, close % 1000 < 500);
    // Of WebSocket's own codes these say that the two do not understand each other.
    const again = close !== 1002 && close !== 1003 && (close < 1007 || close > 1010);
    if (opened || !again) {
        return new TidewireError("connection_lost", `the connection to ${host} was lost (${close})`, again);
    }
    return new TidewireError("unreachable", `no broker answers at ${host}: is it running, and is that its address?`, true);
}
