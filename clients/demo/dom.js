// Small steps with the document. Data goes in as text, never as markup.

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) {
    throw new Error(`index.html has no element "${id}".`);
  }
  return /** @type {T} */ (node);
}

/**
 * Sets a text; an element that shows it already is left alone.
 * @param {Node} node
 * @param {string | number} text
 */
export function setText(node, text) {
  const now = String(text);
  if (node.textContent !== now) {
    node.textContent = now;
  }
}

/**
 * @param {string} tag
 * @param {string} name class
 * @param {...(string | Node)} content
 */
export function make(tag, name, ...content) {
  const node = document.createElement(tag);
  node.className = name;
  node.append(...content);
  return node;
}

/**
 * Adds at the end, keeps at most so many, and stays at the bottom if it was there.
 * @param {HTMLElement} list what is around it scrolls
 * @param {Node} item
 * @param {number} most
 */
export function addLast(list, item, most) {
  const box = list.parentElement ?? list;
  const atBottom = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  list.append(item);
  while (list.children.length > most) {
    list.firstElementChild?.remove();
  }
  if (atBottom) {
    box.scrollTop = box.scrollHeight;
  }
}

/**
 * Lets a screen reader say what is new in a list: not what is stored and comes first.
 * @param {import("/sdk/client.js").Subscription} subscription
 * @param {HTMLElement} list
 */
export function readsAloud(subscription, list) {
  subscription.on("caughtup", () => list.parentElement?.setAttribute("aria-live", "polite"));
}

/**
 * Copies what an element shows.
 * @param {HTMLElement} button
 * @param {HTMLElement} source
 */
export function copies(button, source) {
  const label = button.textContent ?? "";
  button.addEventListener("click", async () => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(source.textContent ?? "");
    } catch {
      getSelection()?.selectAllChildren(source);
      said = "Selected: press Ctrl C";
    }
    setText(button, said);
    setTimeout(() => setText(button, label), 2000);
  });
}

/** @param {number} milliseconds */
export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

const numbers = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** @param {number} n */
export function count(n) {
  return numbers.format(n);
}

/** @param {Date | number} time */
export function timeOfDay(time) {
  return clock.format(time);
}

/**
 * A time as an element.
 * @param {Date} time
 */
export function timeElement(time) {
  const node = document.createElement("time");
  node.dateTime = time.toISOString();
  node.textContent = timeOfDay(time);
  return node;
}
