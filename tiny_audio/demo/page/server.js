// What the server can be asked: calls at once, calls in its queue with their events, uploads; a refusal is one line.

const API = "gradio_api";
const REFUSALS = {
  401: "This demo asks for a name and password; log in and try again.",
  413: "The file is too large for this demo; cut it, or take a compressed format.",
  429: "Too many requests; wait a moment and try again.",
  503: "Too many recordings are waiting; try again in a moment.",
};

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(`${API}/${path}`, options);
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  if (!answer.ok) throw new Error(REFUSALS[answer.status] ?? `The server refused (${answer.status}).`);
  return answer;
}

const json = (data) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ data }) });

// The result of a call that does not wait for a model.
export async function run(name, ...data) {
  const [result] = (await (await ask(`run/${name}`, json(data))).json()).data;
  return checked(result);
}

// The results of a call in the queue, as they come. Leaving the loop takes it out of the queue.
export async function* queued(name, ...data) {
  const { event_id } = await (await ask(`call/${name}`, json(data))).json();
  const { body } = await ask(`call/${name}/${event_id}`);
  let text = "";
  let events = 0;
  for await (const part of texts(body)) {
    text += part;
    const messages = text.split("\n\n");
    text = messages.pop();
    for (const message of messages) {
      const [, kind, value] = message.match(/^event: (\w+)\ndata: (.*)$/s) ?? [];
      if (kind === "error") throw new Error("The recording could not be transcribed; the server's log says why.");
      if (kind === "generating" || (kind === "complete" && !events)) yield checked(JSON.parse(value)[0]);
      if (kind === "complete") return; // of several events it repeats the last
      events += kind === "generating";
    }
  }
}

async function* texts(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    reader.cancel();
  }
}

function checked(result) {
  if (result?.error && !result.model) throw new Error(result.error);
  return result;
}

export const randomId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

// Where an uploaded file lies, for `transcribe`. Gradio files uploads by what they hold; the name keeps two visitors' apart.
export async function upload(file) {
  const body = new FormData();
  body.append("files", file, `${randomId()}-${file.name}`);
  const [path] = await (await ask("upload", { method: "POST", body })).json();
  return path;
}

// The uploaded or fetched file itself.
export async function uploaded(path) {
  return new File([await (await ask(`file=${path}`)).blob()], path.split("/").pop());
}

export const isLoggedIn = async () => (await fetch(`${API}/login_check`)).ok;
export const logIn = async (form) => (await fetch("login", { method: "POST", body: new FormData(form) })).ok;
