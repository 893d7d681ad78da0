// ---- The page: reads its values, fills the table, and keeps the list as the filters say.

const form = document.getElementById("filters");
const list = document.getElementById("list");

try {
  const report = await readReport();
  const view = { report, page: 0, picked: null, clips: [], drawn: [] };
  document.body.classList.toggle("single", report.letters.length === 1);
  document.querySelector("main").hidden = false;
  fillScores(report);
  fillChoices(report.letters);
  listen(view);
  update(view);
  await startBokeh();
  await drawFigures(view);
  document.getElementById("state").hidden = true;
  document.body.dataset.ready = "true";
} catch (error) {
  document.getElementById("state").textContent = `This page cannot be shown: ${error.message}`;
  throw error;
}

function fillScores({ columns, scores }) {
  const row = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  document.querySelector("#scores thead").append(row("th", columns));
  document.querySelector("#scores tbody").append(...scores.map((cells) => row("td", cells)));
}

function fillChoices(letters) {
  for (const select of [form.first, form.second]) {
    select.append(...[...letters].map((letter, run) => element("option", { value: run }, letter)));
  }
  // What a reset goes back to.
  form.second.options[Math.min(1, letters.length - 1)].defaultSelected = true;
  nameChoices(letters, filtersOf({}));
}

function nameChoices(letters, { first, second }) {
  for (const kind of ["better", "worse"]) {
    form.kind.querySelector(`[value=${kind}]`).textContent = `${kind} in ${letters[second]} than in ${letters[first]}`;
  }
  const title = `WER of each clip in ${letters[first]} and ${letters[second]}. A point shows its clips; larger: more of them; over ${MOST} %: at the edge.`;
  document.getElementById("comparison-title").textContent = title;
}

function filtersOf(view) {
  const number = (text) => (text === "" ? null : Number(text));
  return {
    first: Number(form.first.value), second: Number(form.second.value), text: form.text.value.trim(),
    order: form.order.value, ascending: form.ascending.checked, kind: form.kind.value,
    low: number(form.low.value), high: number(form.high.value), picked: view.picked,
  };
}

// ---- The list

function update(view) {
  view.filters = filtersOf(view);
  view.clips = chosenClips(view.report.clips, view.filters);
  show(view, 0);
}

function show(view, page) {
  view.page = page;
  const pages = Math.max(1, Math.ceil(view.clips.length / CLIPS_A_PAGE));
  const shown = view.clips.slice(page * CLIPS_A_PAGE, (page + 1) * CLIPS_A_PAGE);
  list.replaceChildren(...shown.map((clip) => clipItem(clip, view.report.letters, view.filters)));
  const picked = view.picked ? ", picked in a figure" : "";
  document.getElementById("count").textContent = `${view.clips.length} of ${view.report.clips.length} clips${picked}`;
  document.getElementById("where").textContent = `${page + 1} of ${pages}`;
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page + 1 >= pages;
}

function listen(view) {
  form.addEventListener("input", (event) => {
    update(view);
    if (event.target === form.first || event.target === form.second) compare(view);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => reset(view))); // after the fields have gone back
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    document.getElementById(id).addEventListener("click", () => {
      show(view, view.page + step);
      document.getElementById("count").scrollIntoView();
    });
  }
}

function reset(view) {
  for (const { sources } of view.drawn) sources.forEach((source) => (source.selected.indices = [])); // tells showPicked
  update(view);
  compare(view);
}

// ---- The figures

async function drawFigures(view) {
  const { histogram, scatter, slices } = view.report.figures;
  const pick = (clips) => showPicked(view, clips);
  view.drawn = [await draw(histogram, "histogram", pick)];
  if (scatter) view.drawn.push((view.scatter = await draw(scatter, "scatter", pick)));
  for (const [number, item] of slices.entries()) {
    document.getElementById("slices").append(element("div", { id: `slice-${number}` }));
    view.drawn.push(await draw(item, `slice-${number}`, pick));
  }
  compare(view);
}

function compare(view) {
  nameChoices(view.report.letters, view.filters);
  if (view.scatter) fillScatter(view.scatter, view.report.clips, view.report.letters, view.filters);
}

function showPicked(view, clips) {
  view.picked = clips;
  update(view);
  if (clips) document.getElementById("count").scrollIntoView({ behavior: "smooth" });
}
