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
    throw new TidewireError("bad_url", `"${text}" is no address: write it like http://localhost:7070`);
}
/** Codes of close frames from 3500 on that concern the connection as a whole. */
const codes = ["unauthorized", "forbidden", "origin_not_allowed", "host_not_allowed", "", "token_expired"];
/** Says what a close means: by its number, what the broker said, and whether the connection was open before. */
export function diagnose({ code = 0, reason }, opened) {
    if (code >= 3000)
        return new TidewireError(codes[code - 3500] || "refused", `the broker says: ${reason || code}`, code % 1000 < 500);
    // Of WebSocket's own codes these say that the two do not understand each other.
    const again = !/10(0[23789]|10)/.test(`${code}`);
    if (opened || !again) {
        return new TidewireError("connection_lost", `the connection was lost (${code})`, again);
    }
    return new TidewireError("unreachable", "no broker answers: is it running, and is this its address?", true);
}
