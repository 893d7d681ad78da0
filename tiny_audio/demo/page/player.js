// Plays a recording, or exactly one stretch of it, to the sample.

export class Player {
  // `onMove(position in s, or null when it has stopped)` comes with every frame of the screen while it plays.
  constructor(onMove) {
    this.onMove = onMove;
    this.buffer = null;
  }

  // Whether this browser can play the file.
  async load(file) {
    this.stop();
    this.buffer = null;
    this.context ??= new AudioContext();
    this.file = file;
    try {
      const buffer = await this.context.decodeAudioData(await file.arrayBuffer());
      if (file === this.file) this.buffer = buffer; // not that of one that took longer
    } catch {
      return false;
    }
    return true;
  }

  // From and to in seconds; without `to`, to the end.
  play(from = 0, to = this.buffer?.duration) {
    this.stop();
    if (!this.buffer) return;
    this.context.resume();
    this.source = new AudioBufferSourceNode(this.context, { buffer: this.buffer });
    this.source.connect(this.context.destination);
    this.source.start(0, from, to - from);
    Object.assign(this, { from, to, began: this.context.currentTime });
    this.frame();
  }

  frame() {
    const position = this.from + this.context.currentTime - this.began;
    if (position >= this.to) return this.stop();
    this.onMove(position);
    this.request = requestAnimationFrame(() => this.frame());
  }

  get playing() {
    return Boolean(this.source);
  }

  stop() {
    cancelAnimationFrame(this.request);
    this.source?.stop();
    this.source = null;
    this.onMove(null);
  }
}
