/**
 * Publish and subscribe to a Tidewire broker, and lose nothing.
 *
 * @packageDocumentation
 */
import { Connection } from "./client.js";
export { TidewireError } from "./errors.js";
/**
 * Connects to a broker, and comes back whenever the connection is lost. It returns
 * at once: what is published or subscribed before the connection is open waits for
 * it.
 *
 * @param url Address of the broker, or of several nodes, tried in turn; http, https,
 * ws or wss. Where the path is empty, /v1/ws is added.
 * @throws TidewireError `bad_url`
 */
export function connect(url, options = {}) {
    return new Connection(url, options);
}
