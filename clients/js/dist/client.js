import { address, diagnose } from "./address.js";
import { Backoff } from "./backoff.js";
import { Consumer } from "./consumer.js";
import { closed, refusal, TidewireError } from "./errors.js";
import { Lasting } from "./events.js";
import { Received } from "./message.js";
import { Outbox } from "./outbox.js";
import { Subscription } from "./subscription.js";
import { decode, encode } from "./wire/codec.js";
/** A session must have lasted so long for the next failure to count as the first: a broker that closes at once is failing too. */
const stable = 10_000;
/** When a new token is asked for again, if there was none or the broker did not take it. */
const askAgain = 5000;
/** How long a session that was sent away waits for its answers. */
const farewell = 5000;
/** A timer takes no longer time: what is to be later is earlier then, and not at once. */
const bounded = (ms) => Math.min(ms, 2 ** 31 - 1);
/**
 * A client is one state machine, and everything that happens is one of its arrows:
 *
 *     idle --- shown, connect() ---> connecting --- Welcome ---> open
 *      ^                              ^      |                     |
 *      | hidden (from anywhere)       |      | failed              | lost, silence,
 *                      pause over,    |      v                     | offline, GoAway
 *                      online, shown  +--- waiting <---------------+
 *
 *     from anywhere: close(), or a refusal for good ---> closed
 *
 * A socket whose turn is over is detached and forgotten at once: closing one to a
 * silent peer can take a browser half a minute. What it reports late is harmless,
 * since its handlers are gone and `#turn`, which counts attempts, has moved on.
 */
export class Connection extends Lasting {
    state = "idle";
    #options;
    #urls;
    #elsewhere = [];
    #at = 0;
    #url = "";
    #turn = 0;
    #socket;
    /** Those of the running turn. */
    #timers = new Set();
    #pause = new Backoff();
    #heard = 0;
    #welcome = {};
    /** By how much this machine's clock is ahead of the broker's, in milliseconds. */
    #ahead = 0;
    /** When the broker wants the client back, after it has sent it away. */
    #away = 0;
    #lastWord;
    /** The token that the broker has seen last, and one that it does not take. */
    #shown;
    #stale;
    #members = new Set();
    #numbers = new Map();
    #last = 0;
    #outbox;
    /** Ends a client that is being closed, whatever it waits for. */
    #closing;
    #error;
    constructor(urls, options) {
        super();
        this.#options = options;
        this.#urls = [urls].flat().map(address);
        this.#outbox = new Outbox(options.outbox ?? {}, this);
        for (const name of happenings)
            globalThis.addEventListener?.(name, this);
        this.#connect();
    }
    /** Takes what the browser tells of the page and of the network. */
    handleEvent({ type }) {
        // Who sets the clock back has not heard anything for an unknown time.
        const silent = Math.abs(Date.now() - this.#heard) > this.#silence;
        if (type === "pagehide") {
            // What a consumer has in flight here is ready for others at once.
            for (const m of this.#members)
                this.release(m);
            this.#detach();
            this.#enter("idle");
        }
        else if (this.state === "open" && (type === "offline" || silent)) {
            this.#lose(new TidewireError(type === "offline" ? type : "silence", "the network is away", true));
        }
        // A page that is shown, or online, connects at once. (Behind pagehide comes a visibilitychange of a hidden page.)
        const hidden = type[0] === "v" && globalThis.document?.hidden;
        if (!hidden && !/hide|off/.test(type) && /idle|waiting/.test(this.state))
            this.#connect();
    }
    get #silence() {
        return this.#welcome.pingIntervalMs + this.#welcome.pingTimeoutMs || 35_000;
    }
    #enter(state, error) {
        this.state = state;
        this.emit("state", { state, error });
    }
    /** Why there is nothing to begin any more. */
    get #over() {
        return this.state === "closed" || this.#closing ? (this.#error ?? closed("the client")) : undefined;
    }
    async #token() {
        const { token } = this.#options;
        return typeof token === "function" ? token() : token;
    }
    async #connect() {
        this.#detach();
        const turn = this.#turn;
        this.#url = this.#elsewhere.shift() ?? this.#urls[this.#at % this.#urls.length];
        const { timeout = 10_000, WebSocket: Socket = globalThis.WebSocket } = this.#options;
        this.later(timeout, () => this.state === "connecting" && this.#closed({}));
        this.#enter("connecting");
        try {
            const token = await this.#token();
            if (turn !== this.#turn)
                return;
            this.#shown = token;
            if (token && token === this.#stale)
                return this.#finish(this.#error);
            if (!Socket)
                return this.#finish(new TidewireError("no_websocket", noSocket));
            const protocols = ["tidewire.v1.proto"];
            if (token)
                protocols.push(`bearer.${token}`);
            this.#open(new Socket(this.#url, protocols));
        }
        catch (error) {
            if (turn === this.#turn)
                this.#lose(error);
        }
    }
    #open(socket) {
        this.#socket = socket;
        socket.binaryType = "arraybuffer";
        socket.onerror = () => { }; // stays: that of the package ws ends the program where nobody listens
        socket.onopen = () => {
            const subscriptions = [...this.#members].map((m) => this.#ask(m));
            this.send({ connect: { client: this.#options.name ?? "tidewire-js", subscriptions } });
        };
        socket.onmessage = (e) => {
            this.#heard = Date.now();
            try {
                const bytes = new Uint8Array(e.data);
                this.#take(decode(bytes), bytes.length);
            }
            catch (error) {
                this.#lose(error);
            }
        };
        socket.onclose = (e) => this.#closed(e);
    }
    /** Decides whether to come back after the connection has ended. */
    #closed(e) {
        const why = diagnose(e, this.state === "open");
        const error = this.#lastWord ? refusal(this.#lastWord) : why;
        // The same token would be refused again; who can make another comes back with that.
        if (this.#options.token && /unauth|expired/.test(error.code))
            this.#stale = this.#shown;
        else if (!why.retryable)
            return this.#finish(error);
        this.#lose(error);
    }
    /** The session or the attempt is over: waits, and connects again. */
    #lose(error) {
        const opened = this.state === "open";
        const away = this.#away;
        this.#detach();
        if (!opened && this.#error?.message !== error.message)
            this.warn(error.message, this.#url, "(it goes on trying)");
        this.#error = error;
        // After a failure the next node is tried at once, until all have failed.
        let pause = ++this.#at % this.#urls.length && !opened ? 0 : this.#pause.next();
        // A broker that sends everybody away at once is failing, too.
        if (away)
            pause = Math.max(away - Date.now(), this.#pause.failures > 1 ? pause : 0);
        this.later(pause, () => this.#connect());
        this.#enter("waiting", error); // last, since who is told may close the client
    }
    /** Forgets the socket, if there is one, and everything of its session. */
    #detach() {
        this.#turn++;
        this.#last = 0;
        for (const t of this.#timers)
            clearTimeout(t);
        this.#timers.clear();
        this.#numbers.clear();
        this.#outbox.lost();
        for (const m of this.#members)
            m.lost();
        const socket = this.#socket;
        if (!socket)
            return;
        socket.onopen = socket.onmessage = socket.onclose = null;
        socket.close();
        this.#socket = this.#lastWord = undefined;
        this.#away = 0;
    }
    /** Gives a frame to the members that it names, or takes it itself. */
    #take(frame, size) {
        for (const [name, value] of Object.entries(frame)) {
            const { sub, subs = sub && [sub] } = value;
            const takers = subs ? subs.map((n) => this.#numbers.get(n)) : [this];
            for (const taker of takers)
                taker?.[name]?.(value, size);
        }
        if (this.#away && !this.#outbox.waiting)
            this.#leave();
        this.pump();
    }
    published({ results, term }) {
        this.#outbox.answered(results, term);
    }
    ping({ seq }) {
        this.send({ pong: { seq } });
    }
    error(error) {
        if (error.request === "refresh")
            this.#refresh(askAgain);
        else if (error.ref)
            this.#outbox.answered([{ ref: error.ref, error }]);
        else if (!error.request)
            this.#lastWord = error;
    }
    welcome(f) {
        if (!f.limits || this.state !== "connecting")
            return;
        this.#welcome = f;
        this.#ahead = Date.now() - f.time / 1000;
        this.#stale = this.#error = undefined;
        this.later(stable, () => {
            this.#pause.failures = 0;
        });
        this.refreshed(f);
        // Notices when nothing has come for too long: not even a ping.
        this.#timers.add(setInterval(() => this.handleEvent({ type: "tick" }), bounded(this.#silence / 2)));
        this.#enter("open");
        // Those that came after Connect was sent, and so are not in it.
        for (const m of this.#members)
            this.begin(m);
        this.begun();
    }
    goAway({ reconnectAfterMs, elsewhere }) {
        this.#away = Date.now() + reconnectAfterMs;
        // Not from an encrypted connection to a bare one, which would tell the token to the network.
        const safe = (url) => url.startsWith("wss:") || this.#url.startsWith("ws:");
        try {
            this.#elsewhere = elsewhere.map(address).filter(safe);
        }
        catch { } // not an address: then it comes back to where it was
        this.later(farewell, () => this.#leave());
    }
    #leave() {
        this.#lose(new TidewireError("going_away", "the broker is going away", true));
    }
    /** Takes when the token expires, by the broker's clock, and replaces it in time. */
    refreshed({ expiresAt }) {
        if (!expiresAt)
            return;
        const left = expiresAt / 1000 + this.#ahead - Date.now();
        // The randomness keeps clients apart whose tokens were issued together.
        this.#refresh(left - Math.min(left / 4, 60_000) * (1 + Math.random() / 4));
    }
    #refresh(after) {
        this.later(after, async () => {
            const turn = this.#turn;
            const token = await this.#token().catch(() => this.#shown);
            if (turn !== this.#turn)
                return;
            if (!token || token === this.#shown)
                return this.#refresh(askAgain);
            this.#shown = token;
            this.send({ refresh: { token } });
        });
    }
    pump() {
        let publish;
        while (this.state === "open" && !this.#away && (publish = this.#outbox.next(this.#welcome.limits)))
            this.send({ publish });
        if (this.#closing && !this.#outbox.count && !this.#members.size)
            this.#finish();
    }
    async publish(topic, data, options = {}) {
        if (this.#over)
            throw this.#over;
        return this.#outbox.add(topic, data, options);
    }
    subscribe(filter, first = {}, options = {}) {
        return typeof first === "function"
            ? new Subscription(this, filter, options, first)
            : new Subscription(this, filter, first);
    }
    consume(name, filter, worker, options = {}) {
        return new Consumer(this, name, filter, worker, options);
    }
    async history(topic, options = {}) {
        // Most pages do not read history, and need not load the code for it.
        return (await import("./history.js")).history({ Received, TidewireError }, this.#url, await this.#token(), topic, options);
    }
    begin(m) {
        if (m.state === "ended")
            return; // while it rested, or its position was loaded
        if (!this.#members.has(m)) {
            // One that leaves may still have to say something, but nobody comes any more.
            if (this.#over)
                return m.end(this.#over);
            encode({ subscribe: m.ask() }); // what cannot be written is refused here, not over each connection
            this.#members.add(m);
        }
        if (this.state === "open" && !m.sub)
            this.send({ subscribe: this.#ask(m) });
    }
    /** Gives a member its number, and returns what to send. */
    #ask(m) {
        this.#numbers.set((m.sub = ++this.#last), m);
        return { ...m.ask(), sub: m.sub };
    }
    release(m) {
        if (this.#numbers.delete(m.sub))
            this.send({ unsubscribe: { sub: m.sub } });
        m.sub = 0;
    }
    rest(m, atLeast) {
        this.later(m.pause.next(atLeast), () => this.begin(m));
    }
    forget(m) {
        this.#members.delete(m);
        this.release(m);
        this.pump();
    }
    send(frame) {
        if (this.#socket?.readyState === 1)
            this.#socket.send(encode(frame));
    }
    later(ms, f) {
        const t = setTimeout(() => {
            this.#timers.delete(t);
            f();
        }, bounded(ms));
        this.#timers.add(t);
    }
    warn(...what) {
        if (this.#options.log !== false)
            console.warn("tidewire:", ...what);
    }
    async close({ timeout = 5000 } = {}) {
        if (this.state === "closed")
            return;
        this.#closing ??= setTimeout(() => this.#finish(), bounded(timeout));
        for (const m of this.#members)
            m.close();
        this.pump();
        return this.done;
    }
    /** Ends everything, with an error or because the client was closed. */
    #finish(error) {
        if (this.state === "closed")
            return;
        for (const name of happenings)
            globalThis.removeEventListener?.(name, this);
        this.state = "closed";
        clearTimeout(this.#closing);
        this.#error = error ?? closed("the client");
        this.#outbox.end(this.#error);
        for (const m of this.#members)
            m.end(error);
        this.#detach();
        if (error)
            this.warn(error.message, this.#url, "(it does not come back)");
        this.over("the client", error);
        this.emit("state", { state: "closed", error });
    }
}
const noSocket = "there is no WebSocket here: give one as an option";
const happenings = ["offline", "online", "visibilitychange", "pagehide", "pageshow"];
