// What the manifest knows of the open image.

import { at, make } from "./dom.js";

const NAMES = {
  heldout_r2: "held-out R²", heldout_cos: "held-out cosine", cos_raw_clean: "cosine of raw and clean", norm_min: "smallest norm",
  norm_median: "median norm", norm_max: "largest norm", artifact_share: "artifact's share of variance",
  residual_share: "residual's share of variance", seconds: "seconds to compute", smooth: "smoothing",
};

// Show them; `known` holds by version what the server said of the image.
export function showFacts(known) {
  const found = new Map();
  for (const [name, { image }] of known) {
    for (const [key, value] of Object.entries(image ?? {})) {
      if (["image_id", "width", "height"].includes(key)) continue;
      const said = typeof value === "number" ? Number(value.toPrecision(4)) : value;
      const here = found.get(key) ?? new Map();
      found.set(key, here.set(name, said));
    }
  }
  const rows = [...found].map(([key, values]) => {
    const different = new Set(values.values());
    const text = different.size === 1 ? `${[...different][0]}` : [...values].map(([name, value]) => `${value} (${name})`).join(", ");
    return make("div", {}, make("dt", { textContent: NAMES[key] ?? key, title: key }), make("dd", { textContent: text }));
  });
  at("facts").replaceChildren(...rows);
}
