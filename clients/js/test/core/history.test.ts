// Reading what is stored, over HTTP.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { start } from "../support/net.js";

const asked: { url: string; init: RequestInit }[] = [];
let answer: Response;

beforeEach(() => {
  asked.length = 0;
  vi.useFakeTimers();
  vi.stubGlobal("fetch", async (url: URL, init: RequestInit) => {
    asked.push({ url: url.href, init });
    return answer;
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const one = {
  topic: "a.ü",
  id: "i",
  position: "pt-5",
  time: "2026-01-02T15:04:05.000000Z",
  headers: { x: "1" },
  content_type: "application/json",
  payload: '{"a":"ü"}',
};

test("asks where the connection goes, with the token, and reads the one form", async () => {
  answer = Response.json({
    messages: [one, { ...one, content_type: undefined, payload: undefined, payload_base64: "/wA=" }],
    next: "pt-5",
  });
  const { client } = start({ token: "t" }, "https://a:1");
  const { messages, next, gap } = await client.history("a.ü", { from: "earliest", limit: 5 });
  expect(asked[0]?.url).toBe("https://a:1/v1/topics/a.%C3%BC/messages?from=earliest&limit=5");
  expect(asked[0]?.init.headers).toEqual({ Authorization: "Bearer t" });
  expect([next, gap]).toEqual(["pt-5", undefined]);
  expect(messages[0]).toMatchObject({
    topic: "a.ü",
    id: "i",
    position: "pt-5",
    headers: { x: "1" },
    data: { a: "ü" },
    key: "",
    publisher: "",
    expires: undefined,
  });
  expect(messages[0]?.time).toEqual(new Date("2026-01-02T15:04:05Z"));
  expect(messages[1]?.data).toEqual(Uint8Array.of(255, 0));
});

test("what is undefined is not asked for", async () => {
  answer = Response.json({ messages: [], next: "p" });
  const { client } = start();
  await client.history("a", { from: undefined, before: "pt-1", limit: undefined });
  expect(asked[0]?.url).toBe("http://broker.test/v1/topics/a/messages?before=pt-1");
  expect(asked[0]?.init.headers).toBe(undefined);
});

test("a refusal says what the broker says", async () => {
  answer = Response.json(
    { code: "rate_limited", detail: "slowly", retryable: true },
    { status: 429, headers: { "Retry-After": "3" } },
  );
  const { client } = start();
  const failed = client.history("a");
  await expect(failed).rejects.toMatchObject({
    code: "rate_limited",
    message: "slowly",
    retryable: true,
    retryAfterMs: 3000,
  });
});

test.each([
  [502, true],
  [429, true],
  [408, true],
  [404, false],
])("an answer %i that is not the broker's says that, and whether to try again", async (status, retryable) => {
  answer = new Response("<html>", { status });
  const { client } = start();
  const failed = client.history("a");
  await expect(failed).rejects.toMatchObject({
    name: "TidewireError",
    code: "unreachable",
    retryable,
    retryAfterMs: 0,
  });
  await expect(failed).rejects.toThrow(`${status}`);
});
