// The page: from the microphone, a file, an address or an example to the text, and what the visitor can do with it.

import { element } from "./element.js";
import { Player } from "./player.js";
import { Recorder, base64 } from "./recorder.js";
import { isLoggedIn, logIn, queued, randomId, run, upload, uploaded } from "./server.js";
import { article } from "./texts.js";
import { Track } from "./track.js";

const $ = (id) => document.getElementById(id);
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let about; // what the server says of itself
let recorder = null; // while it records
let turn = 0; // of the recording that is shown: a newer one takes its place
let shown = []; // {words, buttons, marks} of each model

const player = new Player(onMove);
const track = new Track($("track"), (seconds) => player.play(seconds));

// ---- Messages

function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}

function say(text) {
  $("live-text").textContent = text;
  $("live").hidden = !text;
}

// ---- Hearing

// One recording, wherever it comes from.
async function hear(file) {
  const mine = ++turn;
  if (recorder) release(); // a file was chosen instead
  clear(file.name);
  try {
    if (file.size > about.max_upload_mb * 1e6) throw new Error(`The file is larger than ${about.max_upload_mb} MB, the most that is taken here.`);
    const path = await upload(file);
    if (mine === turn) await follow(mine, file, path);
  } catch (error) {
    if (mine === turn) fail(error);
  }
  if (mine === turn) finish();
}

async function follow(mine, file, path) {
  const loading = about.models.some((model) => model.state === "loading");
  say(loading ? "Your recording is kept until the model is loaded …" : "Transcribing …");
  for await (const event of queued("transcribe", path, file.name, generation())) {
    if (mine !== turn) return;
    if (event.sound) await showSound(event.sound, file);
    if (event.result) showResult(event.result, file.name);
    if (event.differences) showDifferences(event.differences);
  }
}

function clear(name) {
  player.stop();
  $("texts").querySelectorAll("a").forEach(({ href }) => URL.revokeObjectURL(href));
  $("texts").replaceChildren();
  shown = [];
  $("error").hidden = $("result").hidden = $("legend").hidden = true;
  $("name").textContent = name;
  document.body.dataset.state = "busy";
}

function finish() {
  say("");
  document.body.dataset.state = "ready";
}

async function showSound(sound, file) {
  $("result").hidden = false;
  track.show(sound);
  $("play").disabled = !(await player.load(file));
  $("play").title = $("play").disabled ? "This browser cannot play this format." : "";
  onMove(null);
}

function showResult(result, name) {
  say("");
  const pick = (index) => player.play(result.words[index].start, result.words[index].end);
  const { root, words: buttons } = article(result, name, pick);
  const timed = !result.error && result.words.some((word) => word.start !== undefined);
  shown.push({ words: timed ? result.words : [], buttons, marks: timed ? track.addLane(result.words, pick) : [] });
  $("texts").append(root);
  if (timed) legend("Click a word to hear it. Shaded words: the model was less sure.");
}

function legend(text) {
  $("legend").textContent = [$("legend").hidden ? "" : $("legend").textContent, text].join(" ").trim();
  $("legend").hidden = false;
}

function showDifferences(sides) {
  sides.forEach((indices, side) => indices.forEach((index) => shown[side].buttons[index].classList.add("differs")));
  legend(sides.flat().length ? "Underlined words: the models differ." : "Both models heard the same words.");
}

// ---- Playing

function onMove(position) {
  if (!track.seconds) return;
  track.mark(position);
  $("play").ariaLabel = position === null ? "Play" : "Pause";
  $("play").classList.toggle("on", position !== null);
  $("time").textContent = `${(position ?? 0).toFixed(2)} / ${track.seconds.toFixed(2)} s`;
  for (const { words, buttons, marks } of shown) {
    const heard = position === null ? -1 : words.findIndex(({ start, end }) => start <= position && position < end);
    [buttons, marks].forEach((each) => each.forEach((word, index) => word.classList.toggle("heard", index === heard)));
  }
}

const toggle = () => (player.playing ? player.stop() : player.play());

// ---- Recording

async function startRecording() {
  $("error").hidden = true;
  $("record").disabled = true; // until the browser has asked for permission
  const next = new Recorder(60 * about.max_minutes - 0.5, stopRecording);
  try {
    await next.start();
  } catch (error) {
    return fail(error);
  } finally {
    $("record").disabled = false;
  }
  turn++;
  clear("");
  recorder = next;
  document.body.dataset.state = "recording";
  $("record").ariaPressed = "true";
  followLevel(next);
  showLive(next);
}

// Gives the microphone back; the recording.
function release() {
  const done = recorder;
  recorder = null;
  $("record").ariaPressed = "false";
  $("prompt").textContent = "Press and speak";
  return done.stop();
}

const stopRecording = async () => hear(await release());

function followLevel(mine) {
  if (mine !== recorder) return;
  $("record").style.setProperty("--level", Math.min(1, 2 * mine.level));
  $("prompt").textContent = `${mine.seconds.toFixed(1)} s – press to stop`;
  requestAnimationFrame(() => followLevel(mine));
}

// The text so far. One call at a time, each with all the sound since the last one: what is slow makes no queue.
async function showLive(mine) {
  const id = randomId();
  const nothingYet = () => (about.models[0].state === "loading" ? "The model is still loading; your recording is kept …" : "Listening …");
  say(nothingYet());
  try {
    for (await wait(700); mine === recorder; await wait(700)) {
      const { text } = await run("live", id, base64(await mine.take()), generation());
      if (text === null) break;
      if (mine === recorder) say(text || nothingYet());
    }
    await run("end_live", id);
  } catch {
    // the text at the end does not depend on this one
  }
  if (mine === recorder) say("The text comes when you stop.");
}

// ---- Settings, models, limits

function generation() {
  const filled = [...$("knobs").elements].filter((input) => input.value !== "");
  return Object.fromEntries(filled.map((input) => [input.name, input.valueAsNumber]));
}

function showAbout() {
  $("models").replaceChildren(...about.models.map(modelItem));
  const defaults = about.models[0].defaults;
  for (const input of $("knobs").elements) input.placeholder = defaults[input.name] ?? "";
}

function modelItem({ name, state, seconds, error }) {
  const text = { loading: `Loading ${name} … ${seconds.toFixed(0)} s`, ready: name, failed: error }[state];
  return element("li", { className: state }, text, state === "loading" ? element("progress", { ariaLabel: `Loading ${name}` }) : null);
}

function knobField({ name, label, low, high, step, help }) {
  const input = element("input", { name, type: "number", min: low, max: high, step, title: `${low} to ${high}` });
  return element("label", {}, element("span", {}, label), input, element("small", { className: "quiet" }, help));
}

function exampleButton(name) {
  const words = name.replace(/\.[^.]*$/, "").replaceAll("-", " ");
  const button = element("button", { className: "small", type: "button" }, words);
  button.addEventListener("click", async () => hear(new File([await (await fetch(`clips/${name}`)).blob()], name)));
  return button;
}

async function followModels() {
  do {
    about = await run("about");
    showAbout();
    if (about.models.some((model) => model.state === "loading")) await wait(500);
  } while (about.models.some((model) => model.state === "loading"));
}

async function enter() {
  if (await isLoggedIn()) return;
  const [dialog, form] = [$("login"), $("login").querySelector("form")];
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  await new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await logIn(form)) resolve(dialog.close());
      form.querySelector(".refused").hidden = false;
    });
  });
}

async function start() {
  await enter();
  about = await run("about");
  $("knobs").append(...about.knobs.map(knobField));
  $("examples").append(...about.examples.map(exampleButton));
  $("address").hidden = !about.urls;
  $("hint").textContent = about.hint ?? "";
  $("limits").textContent = `Recordings of up to ${about.max_minutes} minutes and ${about.max_upload_mb} MB; each is deleted as soon as it is read.`;
  document.body.dataset.state = "ready";
  await followModels();
}

// ---- What the visitor does

$("record").ariaLabel = "Record";
$("record").addEventListener("click", () => (recorder ? stopRecording() : startRecording()));
$("play").addEventListener("click", toggle);
$("track").addEventListener("keydown", (event) => {
  if (event.key !== " ") return;
  event.preventDefault();
  toggle();
});
$("file").addEventListener("change", ({ target }) => {
  if (target.files.length) hear(target.files[0]);
  target.value = "";
});
$("knobs").addEventListener("submit", (event) => event.preventDefault());
$("address").addEventListener("submit", async (event) => {
  event.preventDefault();
  clear($("url").value);
  say("Fetching …");
  try {
    for await (const { path } of queued("fetch", $("url").value)) return hear(await uploaded(path));
  } catch (error) {
    fail(error);
  }
  finish();
});
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--scheme").trim() === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  track.draw();
  localStorage.setItem("theme", dark ? "light" : "dark");
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => track.draw());
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) hear(event.dataTransfer.files[0]);
  });
}

start().catch(fail);
