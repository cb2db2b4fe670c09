import { TidewireError } from "./errors.js";
import { Received } from "./message.js";
import type { History, HistoryOptions } from "./types.js";

/** A message in the one JSON form, docs/http.md. */
interface Shown {
  topic: string;
  id: string;
  position: string;
  time: string;
  publisher?: string;
  key?: string;
  content_type?: string;
  headers?: Record<string, string>;
  expires_at?: string;
  payload?: string;
  payload_base64?: string;
}

const micros = (time: string | undefined): number => (time ? Date.parse(time) * 1000 : 0);

function received(m: Shown): Received {
  const payload =
    m.payload_base64 === undefined
      ? new TextEncoder().encode(m.payload)
      : Uint8Array.from(atob(m.payload_base64), (c) => c.charCodeAt(0));
  const wire = {
    topic: m.topic,
    id: m.id,
    payload,
    contentType: m.content_type ?? "",
    headers: Object.entries(m.headers ?? {}).map(([name, value]) => ({ name, value })),
    key: m.key ?? "",
    expiresAt: micros(m.expires_at),
    ephemeral: false,
    publisher: m.publisher ?? "",
    offset: 0,
    time: micros(m.time),
  };
  return new Received(wire, m.position);
}

/** Reads a page of what is stored on a topic over HTTP, at the address of a WebSocket. */
export async function history(
  socket: string,
  token: string | undefined,
  topic: string,
  o: HistoryOptions,
): Promise<History> {
  const url = new URL(`/v1/topics/${encodeURIComponent(topic)}/messages`, socket.replace("ws", "http"));
  for (const name of ["from", "before", "limit"] as const) {
    if (o[name] !== undefined) url.searchParams.set(name, `${o[name]}`);
  }
  const response = await fetch(url, {
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    signal: o.signal,
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const {
      code = "unreachable",
      detail = `the answer was ${response.status}`,
      retryable = response.status >= 500,
    } = body;
    throw new TidewireError(code, detail, retryable, 1000 * Number(response.headers.get("Retry-After")));
  }
  return {
    messages: body.messages.map(received),
    next: body.next,
    gap: body.gap && { after: 0, through: 0, missed: 0, ...body.gap },
  };
}
