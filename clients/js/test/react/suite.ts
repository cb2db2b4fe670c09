import * as React from "react";
import type * as client from "react-dom/client";
import type * as server from "react-dom/server";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  type Connection,
  type Filter,
  type Publisher,
  type Subscribed,
  type SubscribedMessages,
  type SubscribedValue,
  TidewireProvider,
  useClient,
  useConnection,
  usePublish,
  useSubscription,
} from "../../src/react/index.js";
import type { Client, Message } from "../../src/types.js";
import { FakeClient } from "./fake.js";

const { act, createElement: h, StrictMode, useEffect } = React;

/** What the suite needs of the version of React that it is run with. */
export interface ReactDom {
  createRoot: typeof client.createRoot;
  hydrateRoot: typeof client.hydrateRoot;
  renderToString: typeof server.renderToString;
  /** From 19.2 on: hides a part of the page, whose effects end, and shows it again. */
  Activity?: typeof React.Activity;
}

/** The hooks, with one version of React. */
export function hooks(version: string, dom: ReactDom): void {
  // React 18 has none, so what is tested of it is no test there: skipped ones are failures where CI is set.
  const activity = dom.Activity ? test : () => {};
  let fake: FakeClient;
  let root: client.Root;
  let complaints: unknown[][];

  beforeEach(() => {
    vi.useFakeTimers({
      toFake: ["setTimeout", "clearTimeout", "requestAnimationFrame", "cancelAnimationFrame"],
    });
    (globalThis as Record<string, unknown>).IS_REACT_ACT_ENVIRONMENT = true;
    complaints = [];
    vi.spyOn(console, "error").mockImplementation((...args) => complaints.push(args));
    fake = new FakeClient();
    root = dom.createRoot(document.createElement("div"));
  });

  afterEach(async () => {
    await act(async () => root.unmount());
    await vi.runAllTimersAsync();
    expect(fake.broker.open, "subscriptions that are left").toEqual([]);
    expect(complaints, "what React complains of").toEqual([]);
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  /** Shows a component below the provider, under StrictMode. */
  const show = (component: React.FunctionComponent, given: Client | undefined = fake) =>
    act(async () => root.render(h(StrictMode, null, h(TidewireProvider, { client: given }, h(component)))));
  /** Lets the browser paint. */
  const frame = () => act(async () => void (await vi.advanceTimersByTimeAsync(16)));

  describe(`React ${version}`, () => {
    test("is the one that is tested", () => expect(React.version).toMatch(new RegExp(`^${version}\\.`)));
    connecting();
    subscribing();
    livingOn();
    forms();
    telling();
    publishing();
  });

  function connecting(): void {
    test("a hook without a provider says what to do", async () => {
      const alone = () => h("i", null, useClient().state);
      expect(() => dom.renderToString(h(alone))).toThrow("<TidewireProvider client={...}>");
      complaints = [];
    });

    test("useClient gives the client, and says so where there is none", async () => {
      let got: Client | undefined;
      await show(() => h("i", null, (got = useClient()).state));
      expect(got).toBe(fake);
      const page = h(
        TidewireProvider,
        { client: undefined },
        h(() => h("i", null, useClient().state)),
      );
      expect(() => dom.renderToString(page)).toThrow("in the browser alone");
      complaints = [];
    });

    test("useConnection follows the state, and another client", async () => {
      let seen: Connection | undefined;
      const page = () => h("i", null, (seen = useConnection()).state);
      await show(page);
      expect(seen).toEqual({ state: "connecting", error: undefined });
      const lost = new Error("lost");
      await act(async () => fake.tell("waiting", lost));
      expect(seen).toEqual({ state: "waiting", error: lost });
      await act(async () => fake.tell("open"));
      expect(seen).toEqual({ state: "open", error: undefined });
      await show(page, new FakeClient());
      expect(seen).toEqual({ state: "connecting", error: undefined });
    });
  }

  function subscribing(): void {
    test("StrictMode leaves one subscription, and every message is there once", async () => {
      let seen: SubscribedMessages | undefined;
      await show(() => {
        seen = useSubscription("chat.>");
        useEffect(() => {
          fake.broker.send("chat.a", "mounted");
          return () => fake.broker.send("chat.a", "unmounted");
        }, []);
        return null;
      });
      await frame();
      expect(fake.broker.subscriptions).toHaveLength(1);
      expect(texts(seen)).toEqual(["mounted", "unmounted", "mounted"]);
      expect(seen?.state).toBe("live");
      expect(seen?.last?.text()).toBe("mounted");
      await act(async () => root.unmount());
      expect(fake.broker.open).toEqual([]);
    });

    test("ten thousand messages are few renders and a bounded list", async () => {
      let seen: SubscribedMessages | undefined;
      let renders = 0;
      const lists = new Set<unknown>();
      await show(() => {
        seen = useSubscription("ticks");
        lists.add(seen.messages);
        renders++;
        return null;
      });
      await frame();
      const before = renders;
      const timers = vi.spyOn(globalThis, "setTimeout");
      for (let chunk = 0; chunk < 4; chunk++) {
        await act(async () => {
          for (let n = 0; n < 2_500; n++) fake.broker.send("ticks", String(chunk * 2_500 + n));
        });
        await frame();
      }
      expect(renders - before).toBe(4 * 2); // StrictMode renders twice
      expect(timers.mock.calls.filter(([, ms]) => ms === 100)).toHaveLength(4);
      expect(texts(seen)).toEqual(Array.from({ length: 100 }, (_, n) => String(9_900 + n)));
      expect(lists.size).toBe(5);
    });

    test("a list never holds more than it is to, and 0 is nothing", async () => {
      const seen: Record<number, SubscribedMessages> = {};
      await show(() => {
        seen[0] = useSubscription("a", { keep: 0 });
        seen[1] = useSubscription("a", { keep: 1 });
        seen[3] = useSubscription("a", { keep: 3 });
        return null;
      });
      for (let n = 1; n <= 8; n++) {
        await act(async () => fake.broker.send("a", String(n)));
        if (n % 3 === 0) await frame();
      }
      await frame();
      expect(texts(seen[0])).toEqual([]);
      expect(seen[0]?.last?.text()).toBe("8");
      expect(texts(seen[1])).toEqual(["8"]);
      expect(texts(seen[3])).toEqual(["6", "7", "8"]);
    });

    test("a page that paints nothing is brought up to date all the same", async () => {
      vi.stubGlobal("requestAnimationFrame", () => 1);
      let seen: SubscribedMessages | undefined;
      await show(() => {
        seen = useSubscription("a");
        return null;
      });
      await act(async () => fake.broker.send("a", "1"));
      await frame();
      expect(texts(seen)).toEqual([]);
      await act(async () => void (await vi.advanceTimersByTimeAsync(100)));
      expect(texts(seen)).toEqual(["1"]);
      vi.unstubAllGlobals();
    });

    test("on a server nothing is subscribed, and the browser takes its page over", async () => {
      fake.broker.send("a", "old");
      const page = h(
        TidewireProvider,
        { client: fake },
        h(() => {
          const { messages, state } = useSubscription("a", { from: "earliest" });
          const { pending } = usePublish();
          return h("p", null, `${useConnection().state} ${state} ${messages.length} ${pending}`);
        }),
      );
      const html = dom.renderToString(page);
      expect(html).toBe("<p>connecting asking 0 false</p>");
      expect(fake.broker.subscriptions).toEqual([]);
      const place = document.createElement("div");
      place.innerHTML = html;
      fake.state = "open";
      await act(async () => (root = dom.hydrateRoot(place, h(StrictMode, null, page))));
      await frame();
      expect(place.innerHTML).toBe("<p>open live 1 false</p>");
    });

    test("without a client nothing happens, until there is one", async () => {
      let seen: SubscribedMessages | undefined;
      const page = () => {
        seen = useSubscription("a");
        return null;
      };
      await act(async () => root.render(h(TidewireProvider, { client: undefined }, h(page))));
      expect(seen?.state).toBe("asking");
      await act(async () => root.render(h(TidewireProvider, { client: fake }, h(page))));
      await frame();
      expect(seen?.state).toBe("live");
    });
  }

  function livingOn(): void {
    test("options with the same values are the same subscription, other values another", async () => {
      let seen: SubscribedMessages | undefined;
      let given: [Filter, string] = ["a", "earliest"];
      const page = () => {
        seen = useSubscription(given[0], { from: given[1], keep: 5 });
        return null;
      };
      const render = (...next: typeof given) => {
        given = next;
        return show(page);
      };
      await render("a", "earliest");
      await act(async () => fake.broker.send("a", "1"));
      await frame();
      const { messages } = seen!;
      await render("a", "earliest");
      await render("a", "earliest");
      expect(fake.broker.subscriptions).toHaveLength(1);
      expect(seen?.messages).toBe(messages);
      await render("a", "new");
      await frame();
      expect(fake.broker.subscriptions).toHaveLength(2);
      expect(fake.broker.open).toHaveLength(1);
      expect(texts(seen)).toEqual([]);
      await render("b", "new");
      await act(async () => fake.broker.send("b", "2"));
      await frame();
      expect(fake.broker.open.map((s) => s.filter)).toEqual(["b"]);
      expect(texts(seen)).toEqual(["2"]);
      await render(false, "new");
      expect(fake.broker.open).toEqual([]);
      expect(seen).toMatchObject({ messages: [], state: "off" });
      await render("b", "earliest");
      await frame();
      expect(texts(seen)).toEqual(["2"]);
    });

    test("another client is another subscription", async () => {
      const other = new FakeClient();
      const page = () => h("i", null, useSubscription("a").state);
      await show(page);
      expect(fake.broker.open).toHaveLength(1);
      await show(page, other);
      expect(fake.broker.open).toHaveLength(0);
      expect(other.broker.open).toHaveLength(1);
    });

    test("a position store is asked once and told, and its newest form is used", async () => {
      const kept = ["p1"];
      let loads = 0;
      const page = () => {
        const load = () => {
          loads++;
          return kept.at(-1);
        };
        const store = { load, save: (p: string) => void kept.push(p) };
        seen = useSubscription("a", { store });
        return null;
      };
      let seen: SubscribedMessages | undefined;
      for (const text of ["1", "2", "3"]) fake.broker.send("a", text);
      await show(page);
      await frame();
      expect(loads).toBe(1);
      expect(texts(seen)).toEqual(["2", "3"]);
      expect(kept).toEqual(["p1", "p2", "p3"]);
    });

    activity("a part of the page that was hidden goes on where it was", async () => {
      let seen: SubscribedMessages | undefined;
      const hidden: string[] = [];
      const part = h(() => {
        seen = useSubscription("a", { from: "earliest" });
        useSubscription("a", async (m) => void hidden.push(m.text()), { from: "earliest" });
        return null;
      });
      const render = (mode: "visible" | "hidden") => {
        const activity = h(dom.Activity!, { mode, children: part });
        return act(async () =>
          root.render(h(StrictMode, null, h(TidewireProvider, { client: fake }, activity))),
        );
      };
      await render("visible");
      for (const text of ["1", "2"]) await act(async () => fake.broker.send("a", text));
      await render("hidden");
      await frame();
      expect(fake.broker.open).toEqual([]);
      for (const text of ["3", "4"]) await act(async () => fake.broker.send("a", text));
      await render("visible");
      await frame();
      expect(texts(seen)).toEqual(["1", "2", "3", "4"]);
      expect(hidden).toEqual(["1", "2", "3", "4"]);
    });

    activity("a handler that outlives its subscription is waited for", async () => {
      const began: string[] = [];
      const ends: (() => void)[] = [];
      let seen: Subscribed | undefined;
      const part = h(() => {
        seen = useSubscription(
          "a",
          (m) => {
            began.push(m.text());
            return new Promise<void>((end) => ends.push(end));
          },
          {
            from: "earliest",
          },
        );
        return null;
      });
      const render = (mode: "visible" | "hidden") => {
        const activity = h(dom.Activity!, { mode, children: part });
        return act(async () => root.render(h(TidewireProvider, { client: fake }, activity)));
      };
      await render("visible");
      for (const text of ["1", "2"]) await act(async () => fake.broker.send("a", text));
      expect(began).toEqual(["1"]);
      await render("hidden");
      await render("visible");
      await frame();
      expect(seen?.state).toBe("live"); // that it was closed meanwhile is nobody's business
      expect(began).toEqual(["1"]);
      expect(fake.broker.open).toEqual([]);
      await act(async () => ends[0]?.());
      expect(began).toEqual(["1", "2"]);
      await act(async () => ends[1]?.());
    });
  }

  function forms(): void {
    test("reduce is called once for each message, in order, also under StrictMode", async () => {
      let seen: SubscribedValue<string> | undefined;
      const calls: string[] = [];
      for (const text of ["1", "2", "3"]) fake.broker.send("a", text);
      await show(() => {
        seen = useSubscription("a", {
          from: "earliest",
          initial: "",
          reduce: (all: string, m) => {
            calls.push(m.text());
            return all + m.text();
          },
        });
        return null;
      });
      await act(async () => fake.broker.send("a", "4"));
      await frame();
      expect(seen?.value).toBe("1234");
      expect(seen?.last?.text()).toBe("4");
      expect(calls).toEqual(["1", "2", "3", "4"]);
      expect(fake.broker.subscriptions).toHaveLength(1);
    });

    test("a handler gets every message once, in its newest form, and renders nothing", async () => {
      const got: string[] = [];
      let renders = 0;
      let press = () => {};
      await show(() => {
        const [round, setRound] = React.useState(0);
        press = () => setRound(round + 1);
        renders++;
        useSubscription("a", (m) => void got.push(`${round} ${m.text()}`));
        return null;
      });
      await frame();
      const before = renders;
      await act(async () => fake.broker.send("a", "1"));
      await frame();
      expect(renders).toBe(before);
      await act(async () => press());
      await act(async () => fake.broker.send("a", "2"));
      expect(got).toEqual(["0 1", "1 2"]);
      expect(fake.broker.subscriptions).toHaveLength(1);
    });

    test("a slow handler is waited for", async () => {
      const began: string[] = [];
      const ends: (() => void)[] = [];
      await show(() => {
        useSubscription("a", (m) => {
          began.push(m.text());
          return new Promise<void>((end) => ends.push(end));
        });
        return null;
      });
      await act(async () => {
        for (const text of ["1", "2"]) fake.broker.send("a", text);
      });
      expect(began).toEqual(["1"]);
      await act(async () => ends[0]?.());
      expect(began).toEqual(["1", "2"]);
      await act(async () => ends[1]?.());
    });
  }

  function telling(): void {
    test("a gap is shown to who looks at it, and else left to the client, which says it", async () => {
      const seen: unknown[] = [];
      await show(() => {
        const { gap } = useSubscription("a");
        useSubscription("b");
        seen.push(gap);
        return null;
      });
      const [a, b] = fake.broker.open;
      expect(a?.listeners.all.get("gap")?.size).toBe(1);
      expect(b?.listeners.all.has("gap")).toBe(false);
      await act(async () => a?.gap({ reason: "retention" }));
      await frame();
      expect(seen.at(-1)).toEqual({ reason: "retention" });
    });

    test("why a subscription has ended is shown, and another one begins anew", async () => {
      let seen: SubscribedMessages | undefined;
      let next: (filter: string) => void = () => {};
      await show(() => {
        const [filter, setFilter] = React.useState("a");
        next = setFilter;
        seen = useSubscription(filter);
        return null;
      });
      await act(async () => fake.broker.send("a", "1"));
      const refused = new Error("refused");
      await act(async () => fake.broker.open[0]?.fail(refused));
      await frame();
      expect(seen).toMatchObject({ state: "ended", error: refused });
      expect(texts(seen)).toEqual(["1"]);
      await act(async () => next("b"));
      await frame();
      expect(seen).toMatchObject({ state: "live", error: undefined, messages: [] });
      await act(async () => next("b."));
      await frame();
      expect(seen).toMatchObject({ state: "ended", error: new Error("the filter ends in a dot") });
    });

    test("what reduce throws ends the subscription and is shown", async () => {
      let seen: SubscribedValue<number> | undefined;
      const wrong = new Error("wrong");
      const reduce = () => {
        throw wrong;
      };
      await show(() => {
        seen = useSubscription("a", { reduce, initial: 0 });
        return null;
      });
      await act(async () => fake.broker.send("a", "1"));
      await frame();
      expect(seen).toMatchObject({ state: "ended", error: wrong, value: 0 });
    });
  }

  function publishing(): void {
    test("publish stays the same function; pending and error follow what it does", async () => {
      let seen: Publisher | undefined;
      const functions = new Set<unknown>();
      await show(() => {
        const { publish, error } = (seen = usePublish());
        useEffect(() => void functions.add(publish));
        return h("i", null, error?.message);
      });
      expect(seen).toMatchObject({ pending: false, error: undefined });
      await act(async () => void seen?.publish("a", "1"));
      await act(async () => void seen?.publish("a", "2"));
      expect(fake.published.map((p) => p.data)).toEqual(["1", "2"]);
      expect(seen?.pending).toBe(true);
      await act(async () => fake.published[0]?.accept());
      expect(seen).toMatchObject({ pending: true, error: undefined });
      const refused = new Error("refused");
      await act(async () => fake.published[1]?.refuse(refused)); // not caught: the component looks at error
      expect(seen).toMatchObject({ pending: false, error: refused });
      let answer: unknown;
      await act(async () => void seen?.publish("a", "3").then((published) => (answer = published)));
      expect(seen).toMatchObject({ pending: true, error: undefined });
      await act(async () => fake.published[2]?.accept());
      expect(answer).toMatchObject({ topic: "a", stored: true });
      expect(functions.size).toBe(1);
    });

    test("a failure that nobody looks at is not hidden", async () => {
      const unhandled = vi.fn();
      process.once("unhandledRejection", unhandled);
      let seen: Publisher | undefined;
      await show(() => {
        seen = usePublish();
        return null;
      });
      await act(async () => void seen?.publish("a", "1"));
      await act(async () => fake.published[0]?.refuse(new Error("refused")));
      await new Promise((soon) => setImmediate(soon));
      expect(unhandled).toHaveBeenCalledOnce();
    });

    test("without a client publish rejects", async () => {
      let seen: Publisher | undefined;
      await act(async () =>
        root.render(
          h(
            TidewireProvider,
            { client: undefined },
            h(() => {
              seen = usePublish();
              return null;
            }),
          ),
        ),
      );
      await expect(seen?.publish("a", "1")).rejects.toThrow("in the browser alone");
    });
  }
}

function texts(seen: { messages: readonly Message[] } | undefined): string[] | undefined {
  return seen?.messages.map((m) => m.text());
}
