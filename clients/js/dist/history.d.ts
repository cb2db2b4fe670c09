import type { History, HistoryOptions } from "./types.js";
/** Reads a page of what is stored on a topic over HTTP, at the address of a WebSocket. */
export declare function history(socket: string, token: string | undefined, topic: string, o: HistoryOptions): Promise<History>;
