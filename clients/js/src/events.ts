import { closed } from "./errors.js";

// biome-ignore lint/suspicious/noExplicitAny: the interfaces in types.ts say which event has which value
type Listener = (value: any) => void;

/** Tells listeners of events. */
export class Emitter {
  #listeners = new Map<string, Set<Listener>>();

  on(event: string, listener: Listener): () => void {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(listener));
    return () => all.delete(listener);
  }

  /** Calls the listeners, and reports whether there are any. One that throws harms nobody else. */
  emit(event: string, value?: unknown): boolean {
    const all = [...(this.#listeners.get(event) ?? [])];
    for (const listener of all) {
      try {
        listener(value);
      } catch (error) {
        console.error(error);
      }
    }
    return all.length > 0;
  }
}

/** A promise whose rejection nobody needs to handle, and what settles it. */
export interface Deferred<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: unknown) => void;
}

export function deferred<T = void>(): Deferred<T> {
  const d = {} as Deferred<T>;
  d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
  d.promise.catch(() => {});
  return d;
}

/** Something that begins later, and lasts until it is closed or fails. */
export abstract class Lasting extends Emitter {
  #ready = deferred();
  #done = deferred();
  readonly ready = this.#ready.promise;
  readonly done = this.#done.promise;

  abstract close(): Promise<void>;

  protected begun(): void {
    this.#ready.resolve();
  }

  /** `title` is what it is called in sentences. */
  protected over(title: string, error?: Error): void {
    this.#ready.reject(error ?? closed(title));
    if (error) this.#done.reject(error);
    else this.#done.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Acts when a signal is aborted, or is already, unless it is over by then. */
export function onAbort(signal: AbortSignal | undefined, over: Promise<unknown>, act: () => void): void {
  const off = () => signal?.removeEventListener("abort", act);
  signal?.addEventListener("abort", act);
  over.then(off, off);
  if (signal?.aborted) queueMicrotask(act);
}
