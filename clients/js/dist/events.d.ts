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
export {};
