type Listener = (value: any) => void;
/** Tells listeners of events. */
export declare class Emitter {
    #private;
    on(event: string, listener: Listener): () => void;
    /** Calls the listeners, and reports whether there are any. One that throws harms nobody else. */
    emit(event: string, value?: unknown): boolean;
}
/** A promise whose rejection nobody needs to handle, and what settles it. */
export interface Deferred<T> {
    promise: Promise<T>;
    resolve: (value: T) => void;
    reject: (error: unknown) => void;
}
export declare function deferred<T = void>(): Deferred<T>;
/** Something that begins later, and lasts until it is closed or fails. */
export declare abstract class Lasting extends Emitter {
    #private;
    readonly ready: Promise<void>;
    readonly done: Promise<void>;
    abstract close(): Promise<void>;
    protected begun(): void;
    /** `title` is what it is called in sentences. */
    protected over(title: string, error?: Error): void;
    [Symbol.asyncDispose](): Promise<void>;
}
/** Acts when a signal is aborted, or is already, unless it is over by then. */
export declare function onAbort(signal: AbortSignal | undefined, over: Promise<unknown>, act: () => void): void;
export {};
