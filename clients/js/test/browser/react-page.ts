// The page of react.test.ts: bundled with one version of React and run under StrictMode.
import { createElement as h, StrictMode, version } from "react";
import { createRoot } from "react-dom/client";
import { connect } from "../../src/index.js";
import { TidewireProvider, useConnection, usePublish, useSubscription } from "../../src/react/index.js";

/** What the test reads. */
const seen = {
  version,
  handled: [] as number[],
  listed: [] as number[],
  renders: 0,
  state: "",
  sum: 0,
  unmount: () => {},
};
export type Seen = typeof seen;
Object.assign(window, { seen });

const client = connect(new URLSearchParams(location.search).get("broker")!, { log: false });

function Chat() {
  const { messages, state } = useSubscription("numbers.>", { from: "earliest", keep: 10 });
  seen.renders++;
  seen.state = `${useConnection().state} ${state}`;
  seen.listed = messages.map((m) => m.data as number);
  return h("ol", null, ...messages.map((m) => h("li", { key: m.position }, m.text())));
}

function Sum() {
  const reduce = (sum: number, m: { data: unknown }) => sum + (m.data as number);
  const { value } = useSubscription("numbers.>", { from: "earliest", initial: 0, reduce });
  seen.sum = value;
  useSubscription("numbers.>", (m) => void seen.handled.push(m.data as number), { from: "earliest" });
  return h("p", null, value);
}

function Send() {
  const { publish, pending } = usePublish();
  const send = async () => {
    for (let n = 1; n <= 10; n++) await publish("numbers.page", 2_000 + n);
  };
  return h("button", { type: "button", onClick: send, disabled: pending }, "send");
}

const root = createRoot(document.body.appendChild(document.createElement("div")));
root.render(h(StrictMode, null, h(TidewireProvider, { client }, h(Chat), h(Sum), h(Send))));
seen.unmount = () => root.unmount();
