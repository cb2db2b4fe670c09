import { connect } from "../index.js";
import { connectIn } from "./connect.js";
let said = false;
/**
 * Connects like `connect`, but all tabs of the origin that belong together share one
 * connection. Everything else is as there: subscriptions and their positions, what is
 * published, and consumers are each tab's own.
 *
 * Where the browser lacks Web Locks or BroadcastChannel, as it does for a page that
 * came by http, the tab has a connection of its own, and the console says so.
 */
export function connectTabs(url, options = {}) {
    const { navigator, BroadcastChannel: Channel, document: page, WebSocket } = globalThis;
    const locks = navigator?.locks;
    if (locks && Channel && (options.WebSocket ?? WebSocket))
        return connectIn({ locks, Channel, page }, url, options);
    if (options.log !== false && !said) {
        said = true;
        console.warn("tidewire: this tab has a connection of its own: serve the page by https, so that tabs can share one");
    }
    return connect(url, options);
}
