function received({ Received }, m) {
    const bytes = m.payload_base64 ? atob(m.payload_base64) : unescape(encodeURIComponent(m.payload ?? ""));
    return new Received({
        publisher: "",
        key: "",
        ...m,
        payload: Uint8Array.from(bytes, (c) => c.charCodeAt(0)),
        contentType: m.content_type ?? "",
        headers: Object.entries(m.headers ?? {}).map(([name, value]) => ({ name, value })),
        expiresAt: Date.parse(m.expires_at ?? "") * 1000,
        time: Date.parse(m.time) * 1000,
        ephemeral: false,
        offset: 0,
    }, m.position);
}
/** Reads a page of what is stored on a topic over HTTP, at the address of a WebSocket. */
export async function history(core, socket, token, topic, o) {
    const { signal, ...query } = o;
    const given = Object.entries(query).filter(([, value]) => value !== undefined);
    const path = `/v1/topics/${encodeURIComponent(topic)}/messages?${new URLSearchParams(given)}`;
    const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
    const response = await fetch(new URL(path, socket.replace("ws", "http")), { headers, signal });
    const { ok, status } = response;
    // A proxy in between may answer, in a form of its own.
    const foreign = {
        code: "unreachable",
        detail: `what answered is no broker: ${status}`,
        retryable: status === 408 || status === 429 || status >= 500,
    };
    const body = await response.json().catch(() => foreign);
    const { messages, next, gap, code, detail, retryable } = body;
    if (!ok || body === foreign)
        throw new core.TidewireError(code, detail, retryable, 1000 * Number(response.headers.get("Retry-After")));
    return { messages: messages.map((m) => received(core, m)), next, gap };
}
