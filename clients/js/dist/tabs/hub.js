import { build, client, frame, get, parse, server, varint } from "./wire.js";
/**
 * The numbers of guests begin here, and the leader's own stay below, since every
 * client counts from 1. So the leader's frames are sent as they are; and the number
 * of a guest's subscription always takes four bytes.
 */
const firstSub = 2 ** 21;
const firstRef = 2 ** 31;
/** Frames that concern one subscription, and which of their fields has its number. */
const concerned = {
    [server.subscribed]: 1,
    [server.caughtUp]: 1,
    [server.gap]: 1,
    [server.unsubscribed]: 1,
    [server.acked]: 2,
};
/** What the broker says to what comes behind a refused message: a code, and that it is worth repeating. */
const outOfOrder = [
    5,
    build([
        [3, new TextEncoder().encode("out_of_order"), 2],
        [5, 1, 0],
    ]),
    2,
];
const repeated = (f) => f[0] === 2;
const text = (value) => value ? String.fromCharCode(...value) : "";
/**
 * The leader's side: lets guests take part in a session. Frames pass as they are, but
 * for the numbers of subscriptions and of published messages, which must differ within
 * a session.
 *
 * The naive way is a protocol of its own between the tabs. It needs a second client
 * with positions, outbox, credit and consumers in every guest; so they have the first one.
 */
export class Hub {
    #guests = new Map();
    #subs = new Map();
    /** Published messages without an answer: whose, which, and how many of the frame from this one on. */
    #refs = new Map();
    #sub = firstSub;
    #ref = firstRef;
    #welcome;
    #env;
    #group;
    #n;
    #send;
    constructor(env, group, n, send) {
        this.#env = env;
        this.#group = group;
        this.#n = n;
        this.#send = send;
    }
    /** Takes a guest. It is one until it says goodbye, or its lock is released, because it is dead. */
    hello(id) {
        const guest = this.#guests.get(id) ?? this.#guest(id);
        guest.post(this.#welcome ? { open: true } : {});
    }
    #guest(id) {
        const name = `${this.#group}:${id}`;
        const channel = new this.#env.Channel(name);
        const waiting = new AbortController();
        const guest = {
            post: (word) => channel.postMessage({ n: this.#n, ...word }),
            subs: new Map(),
            refused: false,
            leave: () => {
                guest.post = () => { };
                this.#guests.delete(id);
                channel.close();
                waiting.abort();
            },
        };
        channel.onmessage = ({ data }) => {
            if (data.n !== this.#n)
                return;
            if (data.b)
                this.#fromGuest(guest, new Uint8Array(data.b));
            else if (data.bye)
                this.#drop(guest);
            else
                guest.post({});
        };
        this.#env.locks.request(name, { signal: waiting.signal }, () => this.#drop(guest)).catch(() => { });
        this.#guests.set(id, guest);
        return guest;
    }
    /** Forgets a guest, and takes back what it has subscribed to: the broker gives its deliveries to others. */
    #drop(guest) {
        guest.leave();
        for (const real of guest.subs.values()) {
            this.#subs.delete(real);
            this.#send(frame(client.unsubscribe, [[1, real, 0]]));
        }
        guest.subs.clear();
    }
    #fromGuest(guest, bytes) {
        const [first] = parse(bytes);
        if (!first)
            return;
        const [type, body] = first;
        const fields = parse(body);
        if (type === client.connect) {
            guest.post({ b: this.#welcome });
            for (const f of fields)
                if (f[0] === 4)
                    this.#subscribe(guest, parse(f[1]));
        }
        else if (type === client.subscribe) {
            this.#subscribe(guest, fields);
        }
        else if (type === client.publish) {
            this.#publish(guest, fields);
        }
        else if (type !== client.pong && type !== client.refresh) {
            // Unsubscribe and Flow, or Ack and its like, which are answered with the number of the subscription too.
            const sub = fields.find((f) => f[0] === (type > client.flow ? 2 : 1));
            const real = sub && guest.subs.get(sub[1]);
            if (!real)
                return;
            if (type === client.unsubscribe)
                guest.subs.delete(sub[1]);
            sub[1] = real;
            this.#send(frame(type, fields));
        }
    }
    #subscribe(guest, fields) {
        const sub = get(fields, 1);
        const real = this.#sub++;
        guest.subs.set(sub, real);
        this.#subs.set(real, [guest, sub]);
        this.#send(frame(client.subscribe, [[1, real, 0], ...fields.filter((f) => f[0] !== 1)]));
    }
    /**
     * After a retryable refusal the broker takes nothing of the session until a frame
     * says `resume`. That of one tab must not let pass what another has sent before it
     * knew: that is refused here, as the broker would. And a tab of which nothing was
     * refused has nothing to resume.
     */
    #publish(guest, fields) {
        const count = fields.filter(repeated).length;
        const ref = get(fields, 1);
        if (guest.refused && !get(fields, 3)) {
            const results = Array.from({ length: count }, (_, i) => [2, build([[1, ref + i, 0], outOfOrder]), 2]);
            guest.post({ b: frame(server.published, results).buffer });
            return;
        }
        if (this.#ref + count > 2 ** 32)
            this.#ref = firstRef;
        const rest = fields.filter((f) => f[0] !== 1 && (f[0] !== 3 || guest.refused));
        guest.refused = false;
        for (let i = 0; i < count; i++)
            this.#refs.set(this.#ref + i, [guest, ref + i, count - i]);
        this.#send(frame(client.publish, [[1, this.#ref, 0], ...rest]));
        this.#ref += count;
    }
    /** Takes a frame from the broker, and returns what of it is the leader's own. */
    take(data) {
        const bytes = new Uint8Array(data);
        const [tag, behind] = varint(bytes, 0);
        const type = tag >>> 3;
        if (type === server.deliver)
            return this.#deliver(data, bytes, varint(bytes, behind)[1] + 1);
        if (type === server.published && !this.#refs.size)
            return data;
        const fields = parse(bytes.subarray(varint(bytes, behind)[1]));
        if (type === server.welcome)
            this.#open(fields);
        else if (type === server.ping)
            for (const guest of this.#guests.values())
                guest.post({ b: data });
        else if (type === server.published)
            return this.#published(fields);
        else if (type === server.progress)
            this.#progress(fields);
        else if (type === server.error)
            return this.#error(data, fields);
        else if (concerned[type])
            return this.#concerning(data, type, fields, concerned[type]);
        return data;
    }
    /** Delivers to whose subscription it is. The frame keeps its length, which is what it costs of the credit. */
    #deliver(data, bytes, at) {
        const [real, end] = varint(bytes, at);
        if (real < firstSub)
            return data;
        const to = this.#subs.get(real);
        if (!to)
            return;
        for (let sub = to[1]; at < end; sub >>>= 7)
            bytes[at] = (sub & 127) | (++at < end ? 128 : 0);
        to[0].post({ b: data });
        return;
    }
    /** A guest's session never needs a new token: the leader sees to that. */
    #open(fields) {
        this.#welcome = frame(server.welcome, fields.filter((f) => f[0] !== 9)).buffer;
        for (const guest of this.#guests.values())
            guest.post({ open: true });
    }
    #published(fields) {
        const common = fields.filter((f) => !repeated(f));
        const all = new Map();
        for (const f of fields.filter(repeated)) {
            const result = parse(f[1]);
            const real = get(result, 1);
            const [guest, ref] = this.#refs.get(real) ?? [];
            // What a guest left behind is nobody's.
            if (!guest && real >= firstRef)
                continue;
            this.#refs.delete(real);
            const error = get(result, 5);
            if (guest && error)
                guest.refused ||= !!get(parse(error), 5);
            if (!all.has(guest))
                all.set(guest, []);
            const rest = result.filter((r) => r[0] !== 1);
            all.get(guest)?.push(guest ? [2, build([[1, ref, 0], ...rest]), 2] : f);
        }
        let own;
        for (const [guest, results] of all) {
            const { buffer } = frame(server.published, [...common, ...results]);
            if (guest)
                guest.post({ b: buffer });
            else
                own = buffer;
        }
        return own;
    }
    #progress(fields) {
        const all = new Map();
        const list = get(fields, 1);
        for (let at = 0, real; list && at < list.length;) {
            [real, at] = varint(list, at);
            const [guest, sub] = this.#subs.get(real) ?? [];
            if (guest)
                all.set(guest, [...(all.get(guest) ?? []), [1, sub, 0]]);
        }
        const rest = fields.filter((f) => f[0] !== 1);
        for (const [guest, subs] of all)
            guest.post({ b: frame(server.progress, [...subs, ...rest]).buffer });
    }
    /** Takes a frame that concerns one subscription, whose number is in a field. */
    #concerning(data, type, fields, place) {
        const real = get(fields, place);
        if (real < firstSub)
            return data;
        const [guest, sub] = this.#subs.get(real) ?? [];
        if (!guest)
            return;
        if (type === server.unsubscribed ||
            (type === server.error && /^(subscribe)?$/.test(text(get(fields, 7))))) {
            this.#subs.delete(real);
            if (guest.subs.get(sub) === real)
                guest.subs.delete(sub);
        }
        const changed = fields.map((f) => (f[0] === place ? [place, sub, 0] : f));
        guest.post({ b: frame(type, changed).buffer });
        return;
    }
    #error(data, fields) {
        if (get(fields, 2))
            return this.#concerning(data, server.error, fields, 2);
        const real = get(fields, 1);
        const request = text(get(fields, 7));
        // Why the broker is about to close.
        if (!real && !request)
            for (const guest of this.#guests.values())
                guest.post({ b: data });
        if (real < firstRef || request !== "publish")
            return data;
        const [guest, ref, left] = this.#refs.get(real) ?? [];
        if (!guest)
            return;
        for (let i = 0; i < left; i++)
            this.#refs.delete(real + i);
        guest.refused ||= !!get(fields, 5);
        guest.post({ b: frame(server.error, [[1, ref, 0], ...fields.filter((f) => f[0] !== 1)]).buffer });
        return;
    }
    /** Tells all guests that the connection has ended, or that the leader leaves. */
    end(how) {
        for (const guest of [...this.#guests.values()]) {
            guest.post({ end: how });
            guest.leave();
        }
    }
}
