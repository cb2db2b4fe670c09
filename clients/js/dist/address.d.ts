import { TidewireError } from "./errors.js";
/** Reads an address as people write it, and returns that of the WebSocket. */
export declare function address(text: string): string;
/** Says what a close means: by its number, what the broker said, and whether the connection was open before. */
export declare function diagnose({ code, reason }: Partial<CloseEvent>, opened: boolean): TidewireError;
