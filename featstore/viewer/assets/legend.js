// What colours mean: a scale with its numbers, or the clusters, shared by all maps that are shown.

import { drawNumbers, table } from "./colours.js";
import { at, make } from "./dom.js";
import { text } from "./numbers.js";
import { state } from "./state.js";

const NOTES = {
  pca: "Three principal components as red, green and blue; one basis for raw and clean of the version: one colour, one feature.",
  parts: "Three principal components as red, green and blue, in a basis of its own, the same for all images of the version.",
};

const FREE = "A click holds the patch; pointing then reads values.";
const HELD = "Held: pointing reads values; a click on it, or Esc, lets it go.";

let before = "";

export function drawLegend(panels, range, held, change) {
  const kinds = [...new Set(panels.map(({ kind }) => kind))].filter((kind) => kind !== "photo");
  const key = JSON.stringify([kinds, range, held, state.mode, state.clusters]);
  if (key === before) return;
  before = key;
  at("legend").replaceChildren(...kinds.flatMap((kind) => part(kind, range, change)));
  if (kinds.includes("similarity")) at("legend").append(make("span", { textContent: held ? HELD : FREE }));
}

function part(kind, range, change) {
  if (kind === "pca") return [make("span", { textContent: state.mode === "pca" ? NOTES.pca : NOTES.parts })];
  if (kind === "kmeans") return clusters(change);
  const bar = make("canvas", { className: "scale", "aria-hidden": "true" });
  drawNumbers(bar, { height: 1, width: 256 }, Float32Array.from({ length: 256 }, (_, n) => n), table(kind), [0, 256]);
  const [low, high] = range;
  const name = kind === "norm" ? "L2 norm" : "cosine with the patch";
  const below = kind === "similarity" && state.range !== "fitted" ? "; below 0 as 0" : "";
  return [make("span", { className: "range" }, `${name} ${text(low)} `, bar, ` ${text(high)}${below}`)];
}

function clusters(change) {
  const input = make("input", { type: "number", min: 2, max: 20, value: state.clusters });
  input.addEventListener("change", () => change({ clusters: Math.max(2, Math.min(20, Number(input.value) || 8)) }));
  const colours = table("kmeans", state.clusters);
  const swatches = Array.from({ length: state.clusters }, (_, n) => {
    const swatch = make("i", { className: "swatch", title: `cluster ${n + 1}` });
    swatch.style.backgroundColor = `rgb(${colours.slice(3 * n, 3 * n + 3)})`;
    return swatch;
  });
  const label = make("label", {}, "k-means, clusters ", input);
  return [label, make("span", { className: "range" }, ...swatches), make("span", { textContent: "the same for raw and clean of the version" })];
}
