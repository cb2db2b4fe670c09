import type { Client } from "../types.js";
import { type TabsOptions } from "./connect.js";
export type { TabsOptions } from "./connect.js";
/**
 * Connects like `connect`, but all tabs of the origin that belong together share one
 * connection. Everything else is as there: subscriptions and their positions, what is
 * published, and consumers are each tab's own.
 *
 * Where the browser lacks Web Locks or BroadcastChannel, as it does for a page that
 * came by http, the tab has a connection of its own, and the console says so.
 */
export declare function connectTabs(url: string | string[], options?: TabsOptions): Client;
