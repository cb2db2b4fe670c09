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
    const path = `/v1/topics/${encodeURIComponent(topic)}/messages?${new URLSearchParams(query)}`;
    const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
    const response = await fetch(new URL(path, socket.replace("ws", "http")), { headers, signal });
    const { messages, next, gap, code, detail, retryable } = await response.json();
    if (!response.ok)
        throw new core.TidewireError(code, detail, retryable, 1000 * Number(response.headers.get("Retry-After")));
    return { messages: messages.map((m) => received(core, m)), next, gap };
}
