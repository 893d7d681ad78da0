// The microphone: its samples while it records, new ones to be taken at any time, all of them as a WAV file at the end.

export const RATE = 16000; // Hz, what models hear
const UNPROCESSED = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
const REFUSALS = {
  NotAllowedError: "The browser may not use the microphone; allow it in the address bar.",
  NotFoundError: "There is no microphone here; upload a file instead.",
};

export class Recorder {
  // `onFull()`: so many seconds are recorded; heard of even where the page lies in the background.
  constructor(maxSeconds, onFull) {
    Object.assign(this, { maxSeconds, onFull, pieces: [], taken: 0, level: 0 });
  }

  // Rejects with one line where there is no microphone or no permission.
  async start() {
    if (!navigator.mediaDevices) throw new Error("Browsers give the microphone to https pages and to 127.0.0.1 only.");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: UNPROCESSED });
    } catch (error) {
      throw new Error(REFUSALS[error.name] ?? `The microphone cannot be used (${error.message}).`);
    }
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("page/recorder-worklet.js");
    this.node = new AudioWorkletNode(this.context, "recorder");
    this.node.port.onmessage = ({ data }) => this.add(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
  }

  add(piece) {
    this.pieces.push(piece);
    this.level = Math.max(0.95 * this.level, ...piece.map(Math.abs));
    if (this.seconds >= this.maxSeconds) this.onFull();
  }

  get seconds() {
    return this.pieces.length * (this.pieces[0]?.length ?? 0) / this.context.sampleRate;
  }

  // The samples since the last time, int16 at RATE.
  async take() {
    const fresh = this.pieces.slice(this.taken);
    this.taken += fresh.length;
    return resampled(joined(fresh), this.context.sampleRate);
  }

  // Lets go of the microphone; the whole recording.
  async stop() {
    this.stream.getTracks().forEach((track) => track.stop());
    this.node.port.onmessage = null;
    const samples = await resampled(joined(this.pieces), this.context.sampleRate);
    await this.context.close();
    return new File([wavHeader(samples.byteLength), samples], "recording.wav", { type: "audio/wav" });
  }
}

function joined(pieces) {
  const all = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

async function resampled(samples, rate) {
  if (!samples.length) return new Int16Array();
  const context = new OfflineAudioContext(1, Math.ceil((samples.length * RATE) / rate), RATE);
  const buffer = context.createBuffer(1, samples.length, rate);
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  const rendered = (await context.startRendering()).getChannelData(0);
  return Int16Array.from(rendered, (value) => 32767 * Math.max(-1, Math.min(1, value)));
}

// RIFF header of 16-bit mono PCM at RATE.
function wavHeader(bytes) {
  const view = new DataView(new ArrayBuffer(44));
  const words = { 0: "RIFF", 8: "WAVE", 12: "fmt ", 36: "data" };
  for (const [at, word] of Object.entries(words)) [...word].forEach((c, i) => view.setUint8(Number(at) + i, c.charCodeAt(0)));
  const numbers = [[4, 36 + bytes, 4], [16, 16, 4], [20, 1, 2], [22, 1, 2], [24, RATE, 4], [28, 2 * RATE, 4], [32, 2, 2], [34, 16, 2], [40, bytes, 4]];
  for (const [at, value, size] of numbers) size === 4 ? view.setUint32(at, value, true) : view.setUint16(at, value, true);
  return view.buffer;
}

export function base64(samples) {
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}
