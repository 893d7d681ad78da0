// ---- What the page holds: unpacked, with the keys that lists are sorted and searched by.

const textOf = (id) => document.getElementById(id).textContent.trim();
const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

async function unpacked(id) {
  const packed = new Blob([bytesOf(textOf(id))]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
}

async function readReport() {
  const report = JSON.parse(await unpacked("report"));
  report.clips.forEach(prepare);
  return report;
}

function prepare(clip, number) {
  clip.number = number;
  clip.words = wordsOf(clip.scored ?? clip.reference);
  clip.rate = clip.duration ? clip.words.length / clip.duration : undefined; // words a second
  const takes = clip.takes.map((take) => take && [take.prediction, take.scored, take.error]);
  const texts = [clip.id, clip.reference, clip.scored, takes, Object.values(clip.metadata ?? {})];
  clip.haystack = texts.flat(3).join("\n").toLowerCase();
}

const wordsOf = (text) => text.split(/\s+/).filter(Boolean);
const percent = (rate) => `${(100 * rate).toFixed(1)} %`;

// An element with properties and children; a child that is no node becomes text, never HTML.
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child != null));
  return made;
}
