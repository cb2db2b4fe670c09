// @vitest-environment happy-dom
import * as React from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { hooks } from "./suite.js";

hooks("19", { createRoot, hydrateRoot, renderToString, Activity: React.Activity });
