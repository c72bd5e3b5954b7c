// What is shown, and the part of the address behind # that holds it.

export const MODES = ["similarity", "pca", "kmeans", "norm", "artifact", "residual"];

const DEFAULTS = {
  dataset: "", version: "", where: "", sort: "", page: 1, image: "", mode: "similarity", a: "", b: "",
  patch: "", clusters: 8, range: "", over: "", grid: "", mask: "",
};

export const state = { ...DEFAULTS };

// Return what an address asks for; what it does not name has its default.
export function parse(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const found = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    if (!given.has(name)) continue;
    const value = given.get(name);
    found[name] = typeof DEFAULTS[name] === "number" ? Number.parseInt(value, 10) || DEFAULTS[name] : value;
  }
  if (!MODES.includes(found.mode)) found.mode = DEFAULTS.mode;
  return found;
}

// Return the address of the state with some changes.
export function format(changes) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state, ...changes })) {
    if (value !== DEFAULTS[name]) query.set(name, value);
  }
  return `#${query}`;
}

// A side is a variant of a version, `dinov2_s/v1:raw`.
export function parseSide(text) {
  const at = text.lastIndexOf(":");
  return at < 0 ? null : { version: text.slice(0, at), variant: text.slice(at + 1) };
}

// A held patch is `12,7`, row and column of the first side's grid, or `b12,7` of the second's.
export function parsePatch(text) {
  const found = /^(b?)(\d+),(\d+)$/.exec(text);
  return found && { side: found[1] || "a", row: Number(found[2]), column: Number(found[3]) };
}

export function formatPatch({ side, row, column }) {
  return `${side === "b" ? "b" : ""}${row},${column}`;
}
