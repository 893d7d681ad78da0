// The waveform with the words of each model below it, as wide as their times need; it scrolls inside itself.

import { element } from "./element.js";

const PIXELS_A_SECOND = 150; // at least
const PEAKS_A_SECOND = 50; // as the server sends them
const [BAR, GAP] = [2, 1.5]; // pixels

export class Track {
  // `onSeek(seconds)`: the waveform was clicked there.
  constructor(root, onSeek) {
    this.root = root;
    [this.ribbon, this.canvas, this.lanes] = [".ribbon", "canvas", ".lanes"].map((each) => root.querySelector(each));
    this.seconds = 0;
    this.canvas.addEventListener("click", ({ offsetX }) => onSeek((this.seconds * (root.scrollLeft + offsetX)) / this.width));
    root.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(root);
  }

  // `peaks`: base64, a byte for each 20 ms.
  show({ seconds, peaks }) {
    this.seconds = seconds;
    this.peaks = Uint8Array.from(atob(peaks), (c) => c.charCodeAt(0));
    this.lanes.replaceChildren();
    this.root.scrollLeft = 0;
    this.resize();
  }

  // A row of words; `onPick(index)`: one was clicked. Returns their elements.
  addLane(words, onPick) {
    const marks = words.map((word, index) => {
      const mark = element("span", { className: "mark", title: word.text }, word.text);
      mark.style.left = `${(100 * word.start) / this.seconds}%`;
      mark.style.width = `${(100 * (word.end - word.start)) / this.seconds}%`;
      mark.addEventListener("click", () => onPick(index));
      return mark;
    });
    this.lanes.append(element("div", { className: "lane", ariaHidden: "true" }, ...marks)); // the text has them as buttons
    return marks;
  }

  resize() {
    if (!this.seconds) return;
    this.width = Math.max(this.root.clientWidth, this.seconds * PIXELS_A_SECOND);
    this.ribbon.style.width = `${this.width}px`;
    this.canvas.style.width = `${this.root.clientWidth}px`;
    this.canvas.width = this.root.clientWidth * devicePixelRatio;
    this.canvas.height = this.canvas.clientHeight * devicePixelRatio;
    this.draw();
  }

  // The position that is heard, in seconds; null for none.
  mark(position) {
    this.position = position;
    const x = ((position ?? 0) / this.seconds) * this.width;
    const hidden = x < this.root.scrollLeft || x > this.root.scrollLeft + this.root.clientWidth;
    if (position !== null && hidden) this.root.scrollLeft = x - 0.1 * this.root.clientWidth;
    this.draw();
  }

  draw() {
    if (!this.seconds) return;
    const [pen, height, style] = [this.canvas.getContext("2d"), this.canvas.clientHeight, getComputedStyle(this.root)];
    const [played, rest] = ["--accent", "--wave"].map((name) => style.getPropertyValue(name));
    const perPixel = this.seconds / this.width;
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, this.root.clientWidth, height);
    for (let x = 0; x < this.root.clientWidth; x += BAR + GAP) {
      const time = (x + this.root.scrollLeft) * perPixel;
      const size = Math.max(2, (this.loudest(time, (BAR + GAP) * perPixel) / 255) * (height - 8));
      pen.fillStyle = time < (this.position ?? 0) ? played : rest;
      pen.beginPath();
      pen.roundRect(x, (height - size) / 2, BAR, size, 1);
      pen.fill();
    }
  }

  loudest(time, seconds) {
    const first = Math.floor(time * PEAKS_A_SECOND);
    const last = Math.max(first + 1, Math.ceil((time + seconds) * PEAKS_A_SECOND));
    return Math.max(0, ...this.peaks.subarray(first, last));
  }
}
