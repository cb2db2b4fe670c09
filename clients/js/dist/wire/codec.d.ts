import type { ClientFrame, ServerFrame } from "./frames.js";
/**
 * Encodes a frame. What is undefined is left out, as is what has the default of its
 * kind, unless the field is optional.
 */
export declare function encode(frame: ClientFrame): Uint8Array<ArrayBuffer>;
/** Decodes text that is short and of ASCII, several times as fast as a decoder would; gives nothing for other text. */
export declare function ascii(from: Uint8Array, at: number, stop: number): string | undefined;
/**
 * Decodes a frame. Bytes in it are views of `frame`, and lists that are empty cannot
 * be changed. What is unknown is skipped: an unknown frame gives `{}`. Throws if the
 * frame is malformed; text that is not UTF-8 is not: it has the replacement character.
 */
export declare function decode(frame: Uint8Array): ServerFrame;
