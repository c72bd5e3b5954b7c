// The open image: its photograph beside two maps, which follow the pointer.

import { array, json, mask } from "./api.js";
import { drawColours, drawLabels, drawNumbers, table } from "./colours.js";
import { at, complain, fill, make } from "./dom.js";
import { showFacts } from "./facts.js";
import { drawLegend } from "./legend.js";
import { cosines, decode, extent, text } from "./numbers.js";
import { Panel } from "./panel.js";
import { formatPatch, parsePatch, parseSide, state } from "./state.js";

const TITLES = { pca: "PCA", kmeans: "clusters", norm: "norm", similarity: "similarity" };
const decoded = new WeakMap();

let panels = [];
let pointed = null; // the patch under the pointer, in the grid of its side
let hovered = null; // the patch that maps are compared with while none is held
let asked = 0;
let change = () => {};

export function begin(onChange) {
  change = onChange;
}

// Return the sides that are compared: those of the state, or raw and clean of the version where it names none.
export function sides(versions) {
  const own = versions.find((version) => version.name === state.version);
  if (!own) return [];
  const [first, second] = own.variants.includes("raw") ? ["raw", "clean"] : own.variants;
  const chosen = [state.a || `${own.name}:${first}`, state.b || (own.variants.includes(second) ? `${own.name}:${second}` : "none")];
  return chosen.map((each, n) => ({ side: "ab"[n], ...parseSide(each) })).filter(({ version }) => version);
}

// Return what is drawn beside the photograph.
function wanted(versions) {
  const both = sides(versions);
  if (state.mode !== "artifact" && state.mode !== "residual") return both.map((each) => ({ ...each, kind: state.mode }));
  const first = both.filter(({ version }, n) => both.findIndex((other) => other.version === version) === n);
  const having = first.filter(({ version }) => versions.find(({ name }) => name === version)?.variants.includes(state.mode));
  return (having.length ? having : first.slice(0, 1)).flatMap((each) => ["pca", "norm"].map((kind) => ({ ...each, kind, variant: state.mode })));
}

function heading(each, versions) {
  if (state.mode === "artifact" || state.mode === "residual") {
    return make("span", { className: "title", textContent: `${each.variant} of ${each.version}: ${TITLES[each.kind]}` });
  }
  const select = make("select", { "aria-label": each.side === "a" ? "First map" : "Second map" });
  const groups = versions.map(({ name, method, tag, variants }) => [
    [name, method, tag].filter(Boolean).join(" · "),
    variants.map((variant) => [`${name}:${variant}`, `${variant} · ${name}`]),
  ]);
  fill(select, each.side === "b" ? [...groups, ["none", "nothing"]] : groups, each.version ? `${each.version}:${each.variant}` : "none");
  select.addEventListener("change", () => change({ [each.side]: select.value, patch: "" }));
  return select;
}

// Draw the open image anew; the last one asked for wins.
export async function look(versions) {
  const mine = ++asked;
  const { dataset, image } = state;
  const all = wanted(versions);
  const names = [...new Set([state.version, ...all.map(({ version }) => version)])];
  at("panels").setAttribute("aria-busy", "true");
  try {
    const said = names.map((version) => json("image", { dataset, version, image }).catch((error) => ({ error })));
    const facts = new Map((await Promise.all(said)).map((each, n) => [names[n], each]));
    const own = facts.get(state.version);
    if (own.error) throw own.error;
    const loaded = await Promise.all(all.map((each) => load(each, all, facts.get(each.version))));
    if (mine !== asked) return;
    complain(null);
    build(all.map((each, n) => ({ ...each, ...loaded[n], facts: facts.get(each.version) })), own, versions);
    showFacts(facts);
  } catch (error) {
    if (mine !== asked) return;
    complain(error);
  } finally {
    if (mine === asked) at("panels").removeAttribute("aria-busy");
  }
}

// Get what a panel draws: features, and colours or labels that the server makes of them; an error is the panel's own.
async function load({ version, variant, kind }, all, facts) {
  try {
    if (facts.error) throw facts.error;
    const { dataset, image, clusters } = state;
    const given = { dataset, version, image, variant };
    const beside = all.find((other) => other.version !== version)?.version;
    const more = kind === "pca" || kind === "kmeans";
    const [stored, made] = await Promise.all([
      array("features", given),
      more ? array("map", { ...given, kind, beside, ...(kind === "kmeans" ? { clusters } : {}) }) : null,
    ]);
    if (!decoded.has(stored)) decoded.set(stored, decode(stored));
    return { features: decoded.get(stored), made };
  } catch (error) {
    return { error };
  }
}

function build(all, own, versions) {
  const { dataset, version, image } = state;
  const picture = { dataset, version, image, key: own.key };
  const { width, height } = own.image;
  const first = all.find(({ features }) => features);
  const make1 = (each) => {
    const place = each.facts?.place ?? own.place;
    const label = `${each.variant} of ${each.version}, ${TITLES[each.kind]}`;
    const aspect = (place.width * width) / (place.height * height);
    const panel = new Panel({ ...each, heading: heading(each, versions), label, place, aspect, picture });
    panel.size = each.features ?? null;
    Object.assign(panel, { features: each.features, made: each.made });
    if (each.error) panel.map.replaceChildren(make("p", { className: "missing", textContent: each.error.message }));
    return panel;
  };
  const title = make("span", { className: "title", textContent: `${width} × ${height}` });
  const photo = new Panel({
    side: "photo", kind: "photo", heading: title, label: `photograph ${image}`, place: first?.facts.place ?? own.place,
    aspect: width / height, picture,
  });
  photo.size = first?.features ?? null;
  panels = [photo, ...all.map(make1)];
  panels.forEach(listen);
  at("panels").replaceChildren(...panels.map(({ element }) => element));
  const absent = all.length === 1 && state.mode !== "artifact" && state.mode !== "residual";
  if (absent) at("panels").append(make("figure", { className: "panel b" }, make("figcaption", {}, heading({ side: "b" }, versions))));
  at("panels").dataset.count = panels.length;
  const middle = first && { side: first.side, row: first.features.height >> 1, column: first.features.width >> 1 };
  hovered = hovered && fits(hovered) ? hovered : middle;
  pointed = null;
  at("switches").querySelector("[value=mask]").disabled = !own.mask;
  showMask(own);
  draw();
}

const panelOf = (side) => panels.find((panel) => panel.side === side && panel.features);
const fits = ({ side, row, column }) => {
  const size = panelOf(side)?.size;
  return size && row < size.height && column < size.width;
};

// Return the patch that is held, null for none.
export function pinned() {
  const patch = parsePatch(state.patch);
  return patch && fits(patch) ? patch : null;
}

// Return the place in the photograph of a patch of a side's grid.
const spotOf = (patch) => (patch && fits(patch) ? panelOf(patch.side).centre(patch) : null);

// Draw every map for the patch that is meant, and say the values under the pointer.
export function draw() {
  const spot = spotOf(pinned() ?? hovered);
  const numbers = panels.filter((panel) => panel.features && (panel.kind === "similarity" || panel.kind === "norm"));
  for (const panel of numbers) {
    const patch = panel.patchOf(spot);
    panel.values = panel.kind === "norm" ? panel.features.norms
      : patch ? cosines(panel.features, patch.row * panel.size.width + patch.column) : new Float32Array(panel.features.norms.length);
  }
  const fitted = numbers.length && (numbers[0].kind === "norm" || state.range === "fitted");
  const range = fitted ? extent(numbers.map(({ values }) => values)) : [0, 1];
  for (const panel of panels) {
    if (numbers.includes(panel)) drawNumbers(panel.canvas, panel.size, panel.values, table(panel.kind), range);
    if (panel.made) {
      const values = new Uint8Array(panel.made.bytes);
      if (panel.kind === "pca") drawColours(panel.canvas, panel.made.shape, values);
      else drawLabels(panel.canvas, panel.made.shape, values, table("kmeans", state.clusters));
      panel.values = values;
    }
    panel.map.shown = { kind: panel.kind, height: panel.size?.height, width: panel.size?.width, values: panel.values };
    panel.map.classList.toggle("over", Boolean(state.over));
    panel.outline(panel.held, panel.patchOf(spot));
    panel.element.classList.toggle("pinned", pinned() !== null);
  }
  panels[0]?.rule(state.grid);
  drawLegend(panels, range, pinned() !== null, change);
  point();
}

// Show where the pointer is, and the values there.
function point() {
  const spot = spotOf(pointed ?? pinned() ?? hovered);
  const said = [];
  for (const panel of panels) {
    const patch = panel.patchOf(spot);
    panel.outline(panel.pointed, pointed && pinned() ? patch : null);
    if (!patch) {
      panel.say("");
      continue;
    }
    const place = patch.row * panel.size.width + patch.column;
    const where = `${patch.row}, ${patch.column}`;
    const value = panel.kind === "photo" || panel.kind === "pca" || !panel.values ? ""
      : panel.kind === "kmeans" ? `cluster ${panel.values[place] + 1}` : text(panel.values[place]);
    panel.say(panel.kind === "photo" ? `patch ${where}` : value);
    said.push(panel.kind === "photo" ? `patch row ${patch.row}, column ${patch.column}` : value && `${panel.label} ${value}`);
  }
  speak(said.filter(Boolean).join("; "));
}

let speaking = 0;
function speak(words) {
  clearTimeout(speaking);
  speaking = setTimeout(() => (at("spoken").textContent = words), 400);
}

function listen(panel) {
  let frame = 0;
  panel.map.addEventListener("pointermove", (event) => {
    const patch = panel.patchAt(event);
    if (!patch || (pointed && same(pointed, patch))) return;
    pointed = patch;
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      if (pinned()) return point();
      hovered = patch;
      return draw();
    });
  });
  panel.map.addEventListener("pointerleave", () => {
    pointed = null;
    point();
  });
  panel.map.addEventListener("click", (event) => {
    const patch = panel.patchAt(event);
    if (patch) pin(patch);
  });
}

const same = (one, other) => one.side === other.side && one.row === other.row && one.column === other.column;

// Hold a patch, or let it go where it is held.
export function pin(patch = hovered) {
  const now = pinned();
  if (!patch) return;
  hovered = patch;
  const panel = panelOf(patch.side);
  const onto = now && panel?.patchOf(spotOf(now));
  const again = onto && onto.row === patch.row && onto.column === patch.column;
  change({ patch: again ? "" : formatPatch(patch) });
}

// Move the patch by rows and columns, held or not.
export function move(rows, columns) {
  const from = pinned() ?? hovered;
  if (!from) return;
  const { height, width } = panelOf(from.side).size;
  const row = Math.max(0, Math.min(height - 1, from.row + rows));
  const column = Math.max(0, Math.min(width - 1, from.column + columns));
  hovered = { side: from.side, row, column };
  pointed = null;
  if (pinned()) change({ patch: formatPatch(hovered) });
  else draw();
}

async function showMask(own) {
  const overlay = panels[0].overlay;
  at("hint").replaceChildren();
  if (!state.mask || !own.mask) return;
  try {
    const { dataset, version, image } = state;
    const { url, labels } = await mask({ dataset, version, image });
    overlay.src = url;
    overlay.hidden = false;
    const names = labels.map(([name, colour]) => {
      const swatch = make("i", { className: "swatch" });
      swatch.style.backgroundColor = `rgb(${colour})`;
      return make("span", {}, swatch, name);
    });
    at("hint").replaceChildren("labels: ", ...names);
  } catch (error) {
    complain(error);
  }
}

// Get the features of another image before they are asked for.
export function prefetch(image, versions) {
  for (const { version, variant } of wanted(versions)) {
    array("features", { dataset: state.dataset, version, image, variant }).catch(() => {});
  }
}
