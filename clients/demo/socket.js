// The network of this page: one class for the connections of both lanes, so that
// what the buttons break is broken for both alike. Inside each is a WebSocket of
// the browser; nothing here knows what goes over it.

/** The sockets that are open, or opening. @type {Set<PageSocket>} */
const sockets = new Set();
let online = true;

/** Breaks every connection at once, as when a router forgets them. */
export function cut() {
  for (const socket of [...sockets]) {
    socket.break();
  }
}

export function isOnline() {
  return online;
}

/**
 * Takes the page off the network, or puts it back. In between nothing passes in
 * either direction, and nobody is told: an open socket looks open. The page gets
 * the event that the browser sends then.
 * @param {boolean} to
 */
export function goOnline(to) {
  if (to === online) {
    return;
  }
  online = to;
  for (const socket of [...sockets]) {
    if (online) {
      socket.break(); // the connection of before is no longer there
    } else {
      socket.silence();
    }
  }
  window.dispatchEvent(new Event(online ? "online" : "offline"));
}

/** Stops the page, as a heavy computation would, for most of the given time. */
export function slowDown(/** @type {number} */ milliseconds) {
  const end = performance.now() + milliseconds;
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      const until = performance.now() + 150;
      while (performance.now() < until);
      if (until > end) {
        clearInterval(timer);
        resolve(undefined);
      }
    }, 200);
  });
}

/** A WebSocket that the functions above can break. */
export class PageSocket extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;

  /** @type {((event: Event) => void) | null} */
  onopen = null;
  /** @type {((event: MessageEvent) => void) | null} */
  onmessage = null;
  /** @type {((event: Event) => void) | null} */
  onerror = null;
  /** @type {((event: CloseEvent) => void) | null} */
  onclose = null;
  #state = PageSocket.CONNECTING;
  /** @type {WebSocket | null} */
  #inner = null;
  /** @type {BinaryType} */
  #binaryType = "blob";

  /**
   * @param {string} url
   * @param {string | string[]} [protocols]
   */
  constructor(url, protocols) {
    super();
    this.url = url;
    sockets.add(this);
    if (online) {
      this.#open(new WebSocket(url, protocols));
    } else {
      setTimeout(() => this.break(), 50);
    }
  }

  /** @param {WebSocket} inner */
  #open(inner) {
    this.#inner = inner;
    inner.binaryType = this.#binaryType;
    inner.onopen = () => {
      this.#state = PageSocket.OPEN;
      this.#emit(new Event("open"));
    };
    inner.onmessage = (e) => this.#emit(new MessageEvent("message", { data: e.data }));
    inner.onerror = () => this.#emit(new Event("error"));
    inner.onclose = (e) => this.#end(e.code, e.reason, e.wasClean);
  }

  /** @param {Event} event */
  #emit(event) {
    const handler = /** @type {any} */ (this)[`on${event.type}`];
    handler?.call(this, event);
    this.dispatchEvent(event);
  }

  /**
   * @param {number} code
   * @param {string} reason
   * @param {boolean} wasClean
   */
  #end(code, reason, wasClean) {
    sockets.delete(this);
    if (this.#state !== PageSocket.CLOSED) {
      this.#state = PageSocket.CLOSED;
      this.#emit(new CloseEvent("close", { code, reason, wasClean }));
    }
  }

  /** From now on nothing passes, and nothing is said. */
  silence() {
    const inner = this.#inner;
    this.#inner = null;
    if (inner) {
      inner.onopen = inner.onmessage = inner.onerror = inner.onclose = null;
      inner.close();
    }
  }

  /** Ends as a connection does that was lost. */
  break() {
    this.silence();
    if (this.#state !== PageSocket.CLOSED) {
      this.#emit(new Event("error"));
      this.#end(1006, "", false);
    }
  }

  get readyState() {
    return this.#state;
  }

  get protocol() {
    return this.#inner?.protocol ?? "";
  }

  get binaryType() {
    return this.#binaryType;
  }

  set binaryType(/** @type {BinaryType} */ type) {
    this.#binaryType = type;
    if (this.#inner) {
      this.#inner.binaryType = type;
    }
  }

  /** @param {string | ArrayBuffer | Blob | ArrayBufferView<ArrayBuffer>} data */
  send(data) {
    if (this.#state === PageSocket.CONNECTING) {
      throw new DOMException("The socket is not open yet.", "InvalidStateError");
    }
    this.#inner?.send(data); // what is sent while the page is offline is gone
  }

  /**
   * @param {number} [code]
   * @param {string} [reason]
   */
  close(code, reason) {
    if (this.#state >= PageSocket.CLOSING) {
      return;
    }
    this.#state = PageSocket.CLOSING;
    if (this.#inner) {
      this.#inner.close(code, reason);
    }
  }
}
