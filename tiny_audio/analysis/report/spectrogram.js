// ---- The sound of a clip: its player, and its spectrogram, computed here.

const RATE = 16000; // Hz
const WINDOW = 400, SIZE = 512; // samples: 25 ms, padded for the FFT
const SHORTEST_HOP = 80, MOST_COLUMNS = 1000;
const RANGE = 80; // dB below the loudest
const STOPS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

const chosenFiles = new Map(); // by name: files that the reader gave to the page

function soundOf(clip) {
  const source = clip.inlined ? `data:${clip.inlined};base64,${textOf(`sound-${clip.number}`)}` : clip.audio;
  const player = element("audio", { controls: true, preload: "none", src: source });
  const button = element("button", { type: "button" }, "Spectrogram");
  const place = element("div", { className: "spectrogram", hidden: true });
  button.onclick = () => showSpectrogram(clip, player, place);
  return element("div", { className: "sound" }, player, button, place);
}

async function showSpectrogram(clip, player, place) {
  place.hidden = false;
  try {
    const bytes = await bytesOfClip(clip);
    place.replaceChildren(...(bytes ? await spectrogram(bytes, player) : [filePicker(clip, player, place)]));
  } catch (error) {
    place.replaceChildren(element("p", { className: "failure" }, `The browser cannot decode this file: ${error.message}`));
  }
}

// The file's bytes: from the page, from files that the reader chose, or from the server; null where the browser keeps them.
async function bytesOfClip(clip) {
  if (clip.inlined) return bytesOf(textOf(`sound-${clip.number}`)).buffer;
  const file = chosenFiles.get(nameOf(clip.audio));
  if (file) return file.arrayBuffer();
  return location.protocol === "file:" ? null : (await fetch(clip.audio)).arrayBuffer();
}

const nameOf = (url) => decodeURIComponent(url.split("/").pop());

function filePicker(clip, player, place) {
  const input = element("input", { type: "file", accept: "audio/*", multiple: true });
  input.onchange = () => {
    for (const file of input.files) chosenFiles.set(file.name, file);
    showSpectrogram(clip, player, place);
  };
  const why = "A page opened from disk may play a linked file but not read it. Choose it (or all of its folder; nothing leaves this machine), or make the report with --inline-audio: ";
  return element("p", {}, why, element("strong", {}, nameOf(clip.audio)), " ", input);
}

async function spectrogram(bytes, player) {
  const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  const samples = decoded.getChannelData(0);
  const canvas = element("canvas", { className: "spectrum" });
  paint(canvas, powersOf(samples));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Spectrogram");
  canvas.onclick = (event) => (player.currentTime = (event.offsetX / canvas.clientWidth) * decoded.duration);
  const caption = `0 to ${RATE / 2000} kHz upwards, ${decoded.duration.toFixed(2)} s, ${RANGE} dB from dark to bright; a click moves the player.`;
  return [canvas, element("p", { className: "quiet" }, caption)];
}

// Spectra in dB, one a column: Hann windows of 25 ms.
function powersOf(samples) {
  const hop = Math.max(SHORTEST_HOP, Math.ceil(samples.length / MOST_COLUMNS));
  const hann = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
  const columns = [];
  for (let start = 0; start === 0 || start + WINDOW <= samples.length; start += hop) {
    const real = new Float32Array(SIZE), imaginary = new Float32Array(SIZE);
    for (let i = 0; i < WINDOW; i++) real[i] = hann[i] * (samples[start + i] ?? 0);
    fft(real, imaginary);
    columns.push(real.slice(0, SIZE / 2).map((x, i) => 10 * Math.log10(x * x + imaginary[i] ** 2 + 1e-12)));
  }
  return columns;
}

// In place, radix 2 (Cooley and Tukey 1965).
function fft(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let length = 2; length <= n; length *= 2) {
    for (let k = 0; k < length / 2; k++) {
      const angle = (-2 * Math.PI * k) / length, cosine = Math.cos(angle), sine = Math.sin(angle);
      for (let i = k; i < n; i += length) butterfly(real, imaginary, i, i + length / 2, cosine, sine);
    }
  }
}

function butterfly(real, imaginary, i, j, cosine, sine) {
  const r = real[j] * cosine - imaginary[j] * sine, s = real[j] * sine + imaginary[j] * cosine;
  real[j] = real[i] - r; imaginary[j] = imaginary[i] - s;
  real[i] += r; imaginary[i] += s;
}

function paint(canvas, columns) {
  canvas.width = columns.length;
  canvas.height = SIZE / 2;
  const loudest = columns.reduce((most, column) => Math.max(most, ...column), -Infinity);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  columns.forEach((column, x) => column.forEach((power, bin) => {
    const at = 4 * (x + canvas.width * (canvas.height - 1 - bin));
    image.data.set([...colour(1 - (loudest - power) / RANGE), 255], at);
  }));
  context.putImageData(image, 0, 0);
}

function colour(share) {
  const place = Math.min(Math.max(share, 0), 0.9999) * (STOPS.length - 1);
  const stop = Math.floor(place), part = place - stop;
  return STOPS[stop].map((value, i) => value + part * (STOPS[stop + 1][i] - value));
}
