// @vitest-environment happy-dom
import { createRequire } from "node:module";
import type { ReactDom } from "./suite.js";

// react-dom 18 asks for "react", which is 19 here: in this process that name is 18.
const require = createRequire(import.meta.url);
require("react-18");
require.cache[require.resolve("react")] = require.cache[require.resolve("react-18")];
const { createRoot, hydrateRoot } = require("react-dom-18/client") as ReactDom;
const { renderToString } = require("react-dom-18/server") as ReactDom;

const { hooks } = await import("./suite.js");
hooks("18", { createRoot, hydrateRoot, renderToString });
