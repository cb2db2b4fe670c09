import type { TidewireError } from "./errors.js";
import type { Received } from "./message.js";
import type { History, HistoryOptions } from "./types.js";
/** What this part of the SDK needs of the core: given, not imported, so that no bundler cuts the core in two. */
export interface Core {
    Received: typeof Received;
    TidewireError: typeof TidewireError;
}
/** Reads a page of what is stored on a topic over HTTP, at the address of a WebSocket. */
export declare function history(core: Core, socket: string, token: string | undefined, topic: string, o: HistoryOptions): Promise<History>;
