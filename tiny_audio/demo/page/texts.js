// What each model heard: words as buttons where they are timed, shaded where the model was less sure; and the downloads.

import { element } from "./element.js";

// An article of one result; `onPick(index)`: a word was clicked. Returns it and the elements of the words.
export function article(result, name, onPick) {
  const head = element("header", {}, element("h2", {}, result.model));
  if (result.error) return { root: element("article", {}, head, element("p", { className: "failure" }, result.error)), words: [] };
  head.append(element("span", { className: "quiet" }, `in ${result.seconds.toFixed(2)} s`));
  const words = result.words.map((word, index) => wordOf(word, () => onPick(index)));
  const text = element("p", { className: "words", dir: "auto" }, ...words.flatMap((word) => [word, " "]));
  if (!words.length) text.append(element("span", { className: "quiet" }, "(no speech)"));
  const note = result.note && element("p", { className: "quiet" }, result.note);
  return { root: element("article", {}, head, text, note, downloads(result, name)), words };
}

function wordOf(word, onClick) {
  if (word.start === undefined) return element("span", { className: "word" }, word.text);
  const sure = word.confidence == null ? "" : `, ${Math.round(100 * word.confidence)} % sure`;
  const title = `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s${sure}`;
  const button = element("button", { className: "word timed", type: "button", title }, word.text);
  button.dataset.start = word.start;
  button.style.setProperty("--doubt", 1 - (word.confidence ?? 1));
  button.addEventListener("click", onClick);
  return button;
}

function downloads(result, name) {
  const stem = name.replace(/\.[^.]*$/, "").replace(/^\.+/, "") || "recording"; // browsers rename what begins with a dot
  const links = Object.entries(result.documents).map(([format, text]) => {
    const href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    return element("a", { href, download: `${stem}.${format}`, className: "button small", ariaLabel: `Download as ${format}` }, format.toUpperCase());
  });
  const copy = element("button", { className: "small", type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(result.text);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return element("p", { className: "downloads" }, navigator.clipboard ? copy : null, ...links);
}
