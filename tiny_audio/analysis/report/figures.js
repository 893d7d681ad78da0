// ---- The figures: Bokeh draws them; a click on a bar or a point picks its clips.

const MOST = 200; // per cent; rates above are drawn here
const DARK = matchMedia("(prefers-color-scheme: dark)");

async function startBokeh() {
  document.head.append(element("script", { textContent: await unpacked("bokeh") }));
  window.Bokeh.logger.set_level("error");
}

// Draws a figure into the element of that id; `pick` is told the clips of the marks that are clicked, or null for none.
async function draw(item, id, pick) {
  const { roots } = await window.Bokeh.embed.embed_item(item, id);
  const [view] = roots;
  const figure = view.model;
  DARK.addEventListener("change", () => view.request_repaint());
  const sources = figure.renderers.filter(({ name }) => name === "pick").map((renderer) => renderer.data_source);
  for (const source of sources) {
    source.selected.properties.indices.change.connect(() => pick(clipsPicked(sources)));
  }
  return { figure, sources };
}

function clipsPicked(sources) {
  const clips = sources.flatMap(({ selected, data }) => selected.indices.flatMap((i) => data.clips[i]));
  return clips.length ? new Set(clips) : null;
}

// Clips of equal rates are one point, the larger the more they are.
function pointsOf(clips, first, second) {
  const points = new Map();
  for (const clip of clips) {
    const rates = [clip.takes[first]?.wer, clip.takes[second]?.wer];
    if (rates.some((rate) => rate == null)) continue;
    const [x, y] = rates.map((rate) => Math.min(100 * rate, MOST));
    const key = `${x} ${y}`;
    if (!points.has(key)) points.set(key, { x, y, clips: [] });
    points.get(key).clips.push(clip.number);
  }
  return [...points.values()];
}

function fillScatter({ figure, sources: [source] }, clips, letters, { first, second }) {
  const points = pointsOf(clips, first, second);
  const count = points.map((point) => point.clips.length);
  source.data = {
    x: points.map((point) => point.x), y: points.map((point) => point.y), clips: points.map((point) => point.clips),
    count, size: count.map((clipsHere) => Math.min(6 + 2 * Math.sqrt(clipsHere), 40)),
  };
  figure.below[0].axis_label = `WER of ${letters[first]}, %`;
  figure.left[0].axis_label = `WER of ${letters[second]}, %`;
}
