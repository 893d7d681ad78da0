// ---- The list of clips: which, in what order, and how one looks.

const CLIPS_A_PAGE = 25;
const COLLATOR = new Intl.Collator(undefined, { numeric: true });

const KINDS = {
  all: () => true,
  wrong: (a, b) => a?.errors > 0 || b?.errors > 0,
  failed: (a, b) => Boolean(a?.error || b?.error),
  better: (a, b) => b?.wer < a?.wer,
  worse: (a, b) => b?.wer > a?.wer,
};

const ORDERS = {
  wer: (clip, a) => a?.wer,
  errors: (clip, a) => a?.errors,
  change: (clip, a, b) => changeOf(a, b),
  duration: (clip) => clip.duration,
  snr: (clip) => clip.snr,
  rate: (clip) => clip.rate,
  id: (clip) => clip.id,
};

const changeOf = (a, b) => (a?.wer == null || b?.wer == null ? undefined : b.wer - a.wer);

// The clips that the filters leave, sorted; clips without the key come last either way.
function chosenClips(clips, filters) {
  const { first, second, text, kind, low, high, picked } = filters;
  const wanted = text.toLowerCase();
  const ranged = low !== null || high !== null;
  const kept = clips.filter((clip) => {
    const [a, b] = [clip.takes[first], clip.takes[second]];
    const rate = a?.wer == null ? NaN : 100 * a.wer;
    return (!picked || picked.has(clip.number)) && KINDS[kind](a, b) &&
      (!ranged || (rate >= (low ?? 0) && rate <= (high ?? Infinity))) && clip.haystack.includes(wanted);
  });
  return sorted(kept, filters);
}

function sorted(clips, { order, ascending, first, second }) {
  const keys = new Map(clips.map((clip) => [clip, ORDERS[order](clip, clip.takes[first], clip.takes[second])]));
  const sign = ascending ? 1 : -1;
  const compare = (x, y) => {
    if (x === y) return 0;
    if (x === undefined || y === undefined) return x === undefined ? 1 : -1;
    return sign * (typeof x === "string" ? COLLATOR.compare(x, y) : x - y);
  };
  return clips.sort((x, y) => compare(keys.get(x), keys.get(y)) || x.number - y.number);
}

// ---- One clip

function clipItem(clip, letters, { first, second }) {
  const item = element("li", { id: `clip-${clip.number}` });
  const change = changeOf(clip.takes[first], clip.takes[second]);
  item.append(
    element("div", { className: "head" }, element("strong", {}, clip.id), ...facts(clip), changeNote(change, letters[second])),
    element("p", { className: "reference", dir: "auto" }, ...referenceLine(clip)),
    ...clip.takes.map((take, run) => take && takeLine(clip, take, letters[run])).filter(Boolean),
  );
  if (clip.audio) item.append(soundOf(clip));
  item.append(details(clip, letters));
  return item;
}

function facts(clip) {
  const texts = [clip.duration && `${clip.duration.toFixed(2)} s`, clip.snr != null && `SNR ${clip.snr.toFixed(0)} dB`, clip.speaker];
  return texts.filter(Boolean).map((text) => element("span", {}, text));
}

function changeNote(change, letter) {
  if (!change) return null;
  const worse = change > 0;
  return element("span", { className: worse ? "worse" : "better" }, `${letter} ${worse ? "worse" : "better"} by ${percent(Math.abs(change))}`);
}

// The runs of one kind in an alignment, as `e5s1d2`, with where they begin in the reference (r) and the prediction (p).
function* chunksOf(alignment) {
  let r = 0, p = 0;
  for (const [, kind, digits] of alignment.matchAll(/([esdi])(\d+)/g)) {
    const count = Number(digits);
    yield { kind, count, r, p };
    if (kind !== "i") r += count;
    if (kind !== "d") p += count;
  }
}

// The reference; words that some run did not recognise are marked.
function referenceLine(clip) {
  if (!clip.words.length) return [element("em", { className: "quiet" }, "(empty reference)")];
  const missed = new Set();
  for (const take of clip.takes) {
    if (!take?.alignment || take.reference !== undefined) continue;
    for (const { kind, count, r } of chunksOf(take.alignment)) {
      if (kind === "s" || kind === "d") for (let i = r; i < r + count; i++) missed.add(i);
    }
  }
  return spaced(clip.words.map((word, i) => (missed.has(i) ? element("span", { className: "missed" }, word) : word)));
}

function takeLine(clip, take, letter) {
  const line = element("p", { className: "take", dir: "auto" }, element("b", {}, letter), " ");
  if (take.error !== undefined) {
    line.append(element("span", { className: "failure" }, `failed: ${take.error}`));
    return line;
  }
  line.append(element("span", { className: "rate quiet" }, percent(take.wer)), " ", ...difference(clip, take));
  return line;
}

const MARKS = { s: "mark", i: "ins", d: "del" };

// The prediction's words, wrong ones marked, and the deleted words of the reference between them.
function difference(clip, take) {
  const predicted = wordsOf(take.scored ?? take.prediction);
  const expected = take.reference === undefined ? clip.words : wordsOf(take.reference);
  const alignment = take.alignment ?? `e${predicted.length}`;
  const nodes = [];
  for (const { kind, count, r, p } of chunksOf(alignment)) {
    const words = kind === "d" ? expected.slice(r, r + count) : predicted.slice(p, p + count);
    nodes.push(...(kind === "e" ? words : words.map((word, i) => marked(kind, word, expected[r + i]))));
  }
  return nodes.length ? spaced(nodes) : [element("em", { className: "quiet" }, "(empty)")];
}

function marked(kind, word, expected) {
  return element(MARKS[kind], kind === "s" ? { title: `for “${expected}”` } : {}, word);
}

const spaced = (nodes) => nodes.flatMap((node, i) => (i ? [" ", node] : [node]));

function details(clip, letters) {
  const rows = [["reference", clip.reference]];
  clip.takes.forEach((take, run) => take?.prediction !== undefined && rows.push([`prediction ${letters[run]}`, take.prediction]));
  if (clip.rate !== undefined) rows.push(["words a second", clip.rate.toFixed(1)]);
  for (const [name, value] of Object.entries(clip.metadata ?? {})) rows.push([name, typeof value === "string" ? value : JSON.stringify(value)]);
  const list = element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", { dir: "auto" }, value)]));
  return element("details", {}, element("summary", {}, "Raw texts and metadata"), list);
}
