import type { Client, ConnectOptions } from "../types.js";
import type { Env } from "./hub.js";
/** What `connectTabs` takes besides the address. */
export interface TabsOptions extends ConnectOptions {
    /**
     * Which tabs share a connection, besides that they are of one origin and connect to
     * the same address. Default: those whose tokens say the same, but for the times in
     * them. Give it where the page does not have the token, as with a cookie: one name for
     * each user.
     */
    group?: string | undefined;
}
/** Connects in the browser that is given, which has all that it takes. */
export declare function connectIn(env: Env, url: string | string[], options: TabsOptions): Client;
