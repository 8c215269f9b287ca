// Gapless playback: all loops of one length run in sync from one context time, and gains decide which are heard: one of
// them, or several in layers.

const QUANTUM = 128; // frames that Web Audio renders at once; playbackRate changes only between two of them
const LEAD = 0.03; // seconds between asking for something and hearing it
const FADE = 0.004; // seconds; a switch fades just before the bar line so that the downbeat's attack stays whole

/** Whether two loops can run in one group. */
const alike = (one, other) => one.buffer.length === other.buffer.length && one.bars === other.bars;

/** Loops of one length and metre, started together: at context frame `start` they are at their own frame `at`. */
class Group {
  constructor(ctx, output, loops, start, rate, at = 0) {
    this.ctx = ctx;
    this.frames = loops[0].buffer.length;
    this.bars = loops[0].bars;
    this.anchor = { frame: start, at, rate };
    this.first = start; // context frame from which it is fully heard
    this.voices = new Map(loops.map((loop) => {
      const source = new AudioBufferSourceNode(ctx, { buffer: loop.buffer, loop: true, playbackRate: rate });
      const gain = new GainNode(ctx, { gain: 0 });
      source.connect(gain).connect(output);
      source.start(start / ctx.sampleRate, at / ctx.sampleRate);
      return [loop, { source, gain: gain.gain, value: 0, until: 0 }];
    }));
  }

  /** Frames played since the start, at context frame `frame`. */
  played(frame) {
    return this.anchor.at + Math.max(0, frame - this.anchor.frame) * this.anchor.rate;
  }

  /** Context frame of the first bar line at or after context frame `frame`. */
  barLine(frame) {
    const played = this.played(frame);
    const rounds = Math.floor(played / this.frames);
    const bar = Math.ceil(((played - rounds * this.frames) / this.frames) * this.bars - 1e-9);
    const line = rounds * this.frames + (bar * this.frames) / this.bars;
    return Math.round(this.anchor.frame + (line - this.anchor.at) / this.anchor.rate);
  }

  setRate(rate, frame) {
    this.anchor = { frame, at: this.played(frame), rate };
    const time = (frame - 0.5) / this.ctx.sampleRate; // surely before its render quantum, surely after the last
    for (const { source } of this.voices.values()) source.playbackRate.setValueAtTime(rate, time);
  }

  /** Bring a loop to gain `to` by context frame `frame`, or when an earlier fade of it is over. */
  fade(loop, to, frame) {
    const voice = this.voices.get(loop);
    if (voice.value === to) return;
    const end = Math.max(frame / this.ctx.sampleRate, voice.until + FADE);
    voice.gain.setValueAtTime(voice.value, end - FADE);
    voice.gain.linearRampToValueAtTime(to, end);
    Object.assign(voice, { value: to, until: end });
  }

  hold(loop, value) {
    const voice = this.voices.get(loop);
    voice.gain.cancelScheduledValues(0);
    voice.gain.value = value;
    Object.assign(voice, { value, until: 0 });
  }

  /** Leave the stage to another group at context frame `frame`. */
  endAt(frame) {
    for (const { source } of this.voices.values()) source.stop(frame / this.ctx.sampleRate);
  }

  stop() {
    for (const { source, gain } of this.voices.values()) {
      gain.cancelScheduledValues(0);
      gain.setTargetAtTime(0, this.ctx.currentTime, 0.005);
      source.stop(this.ctx.currentTime + 0.05);
    }
  }
}

export class Engine {
  loops = [];
  current = 0;
  rate = 1;
  at = 0; // loop frame that the next play starts from
  pending = null; // {index, group, frame}: the switch that is planned
  #group = null;
  #levels = null; // a gain for each loop while several are heard, else null

  /** `makeContext(sampleRate)` is called at the first play, since browsers want a click before sound. */
  constructor(makeContext = (sampleRate) => new AudioContext({ sampleRate, latencyHint: "interactive" })) {
    this.makeContext = makeContext;
  }

  get playing() { return this.#group !== null; }

  /** Loops as {buffer, bars}; ends what is playing. */
  load(loops, sampleRate) {
    this.stop();
    if (this.ctx && this.ctx.sampleRate !== sampleRate) {
      this.ctx.close();
      this.ctx = null;
    }
    Object.assign(this, { loops, sampleRate, current: 0, at: 0 });
    this.#levels = null;
  }

  play() {
    if (this.playing || !this.loops.length) return;
    if (!this.ctx) {
      this.ctx = this.makeContext(this.sampleRate);
      this.analyser = new AnalyserNode(this.ctx, { fftSize: 2048 });
      this.analyser.connect(this.ctx.destination);
    }
    this.ctx.resume();
    this.#group = this.#start(this.current, this.#now(LEAD), this.at % this.loops[this.current].buffer.length);
    for (const loop of this.#group.voices.keys()) this.#group.hold(loop, this.#gain(loop));
    this.at = 0;
  }

  stop() {
    this.#settle();
    this.#unplan();
    this.#group?.stop();
    this.#group = null;
  }

  /** Switch to loop `index`: at once when silent or in layers, else at the next bar line. Layers are of one length. */
  select(index) {
    if (!this.loops[index] || (this.#levels && !this.layers(index))) return;
    this.#settle();
    this.#unplan();
    if (!this.playing || this.#levels) this.current = index;
    else if (index !== this.current) this.#plan(index);
  }

  /** Whether loop `index` can be heard together with the current one: they are of one length and metre. */
  layers(index) { return alike(this.loops[index], this.loops[this.current]); }

  /** Hear several at once, each loop at its gain of `levels`, from now on; null goes back to the current one alone. */
  mix(levels) {
    this.#settle();
    this.#unplan();
    this.#levels = levels;
    if (!this.playing) return;
    const frame = this.#now(FADE) + QUANTUM;
    for (const loop of this.#group.voices.keys()) this.#group.fade(loop, this.#gain(loop), frame);
  }

  #gain(loop) {
    const index = this.loops.indexOf(loop);
    return this.#levels ? this.#levels[index] : Number(index === this.current);
  }

  /** Go to loop frame `at`, all loops together. */
  seek(at) { this.#jump(() => at); }

  /** Go `frames` on (or back) from where the loops will be at the jump, so that the beat is kept. */
  move(frames) { this.#jump((here) => here + frames); }

  /** Play at `rate` times the tempo (and pitch). */
  nudge(rate) {
    this.rate = rate;
    if (!this.playing) return;
    this.#settle();
    const next = this.pending?.index;
    this.#unplan();
    const frame = Math.ceil(Math.max(this.#now(), this.#group.anchor.frame) / QUANTUM + 2) * QUANTUM;
    this.#group.setRate(rate, frame);
    if (next !== undefined) this.#plan(next, frame);
  }

  /** Where the ear is, in loops: {index, phase 0..1}. */
  position() {
    this.#settle();
    if (!this.playing) return { index: this.current, phase: this.loops.length && (this.at / this.loops[this.current].buffer.length) % 1 };
    const heard = Math.max(this.#now(-(this.ctx.outputLatency || 0)), this.#group.first);
    return { index: this.current, phase: (this.#group.played(heard) / this.#group.frames) % 1 };
  }

  /** Peak of the last 2048 samples in dBFS. */
  level() {
    if (!this.playing) return -Infinity;
    const samples = new Float32Array(this.analyser.fftSize);
    this.analyser.getFloatTimeDomainData(samples);
    return 20 * Math.log10(samples.reduce((peak, x) => Math.max(peak, Math.abs(x)), 0));
  }

  #now(ahead = 0) { return Math.round((this.ctx.currentTime + ahead) * this.ctx.sampleRate); }

  /** Go on at place(here); a planned switch stays planned, for the first bar line from there. */
  #jump(place) {
    if (!this.loops.length) return;
    const { length } = this.loops[this.current].buffer;
    const inside = (at) => { const rest = Math.round(at) % length; return rest < 0 ? rest + length : rest; };
    if (!this.playing) {
      this.at = inside(place(this.at));
      return;
    }
    this.#settle();
    const next = this.pending?.index;
    this.#unplan();
    const [old, fade] = [this.#group, Math.ceil(FADE * this.sampleRate)];
    const frame = Math.max(this.#now(LEAD), old.first + 2 * fade);
    // it fades in just before its place, as a switch does, so that an attack there stays whole
    this.#group = this.#start(this.current, frame - fade, inside(place(old.played(frame)) - fade * this.rate));
    this.#group.first = frame;
    for (const loop of old.voices.keys()) {
      this.#group.fade(loop, this.#gain(loop), frame);
      old.fade(loop, 0, frame);
    }
    old.endAt(frame);
    if (next !== undefined) this.#plan(next, frame);
  }

  #start(index, frame, at = 0) {
    const together = this.loops.filter((loop) => alike(loop, this.loops[index]));
    return new Group(this.ctx, this.analyser, together, frame, this.rate, at);
  }

  #plan(index, earliest = 0) {
    const frame = this.#group.barLine(Math.max(this.#now(LEAD), earliest, this.#group.first));
    const [from, to] = [this.loops[this.current], this.loops[index]];
    const group = this.#group.voices.has(to) ? this.#group : this.#start(index, frame);
    this.#group.fade(from, 0, frame);
    if (group === this.#group) group.fade(to, 1, frame);
    else group.hold(to, 1);
    this.pending = { index, group, frame };
  }

  /** Take a switch whose fade has begun as done. */
  #settle() {
    if (!this.pending || this.#now(FADE) < this.pending.frame) return;
    const { index, group, frame } = this.pending;
    if (group !== this.#group) this.#group.endAt(frame);
    this.#group = group;
    this.current = index;
    this.pending = null;
  }

  #unplan() {
    if (!this.pending) return;
    const { index, group } = this.pending;
    if (group === this.#group) group.hold(this.loops[index], 0);
    else group.stop();
    this.#group.hold(this.loops[this.current], 1);
    this.pending = null;
  }
}
