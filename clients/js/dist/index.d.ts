import type { Client, ConnectOptions } from "./types.js";
export { TidewireError } from "./errors.js";
export type * from "./types.js";
/**
 * Connects to a broker, and comes back whenever the connection is lost. It returns
 * at once: what is published or subscribed before the connection is open waits for
 * it.
 *
 * @param url Address of the broker, or of several nodes, tried in turn; http, https,
 * ws or wss. Where the path is empty, /v1/ws is added.
 * @throws TidewireError `bad_url`
 */
export declare function connect(url: string | string[], options?: ConnectOptions): Client;
