// What the server is asked. Every answer that is an error becomes an Error of one line.

const HELD = 14;
const held = new Map();

export function address(path, given) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value !== undefined && value !== null && value !== "") query.set(name, value);
  }
  return `api/${path}?${query}`;
}

async function ask(path, given) {
  let answer;
  try {
    answer = await fetch(address(path, given));
  } catch {
    throw new Error("the server does not answer: is `featstore view`, or the tunnel to it, still running?");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let line = text.trim();
  try {
    line = JSON.parse(text).error;
  } catch {
    // not ours: told as it is
  }
  throw new Error(line || `the server answered ${answer.status}`);
}

export async function json(path, given) {
  return (await ask(path, given)).json();
}

// Return {shape, bytes} of an array; the last ones asked for are kept.
export function array(path, given) {
  const key = address(path, given);
  const known = held.get(key);
  held.delete(key);
  const found = known ?? ask(path, given).then(async (answer) => ({
    shape: answer.headers.get("X-Shape").split(",").map(Number),
    bytes: await answer.arrayBuffer(),
  }));
  held.set(key, found);
  found.catch(() => held.delete(key));
  if (held.size > HELD) held.delete(held.keys().next().value);
  return found;
}

// Return {url, labels} of an image's mask.
export async function mask(given) {
  const answer = await ask("mask", given);
  return { labels: JSON.parse(answer.headers.get("X-Labels")), url: URL.createObjectURL(await answer.blob()) };
}
