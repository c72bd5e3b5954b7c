// Numbers and labels as colours; the tables are those of `featstore figure`.

import { json } from "./api.js";

let tables = null;

export async function load() {
  tables ??= await json("colours");
}

// Return the table of colours of a kind of map; clusters beyond eight have another.
export function table(kind, clusters) {
  if (kind === "kmeans") return tables[clusters > 8 ? "many" : "few"];
  return tables[kind === "similarity" ? "cosine" : "norm"];
}

// Draw numbers on a canvas, a pixel each: colours from low to high.
export function drawNumbers(canvas, { height, width }, values, colours, [low, high]) {
  const scale = high > low ? 256 / (high - low) : 0;
  paint(canvas, height, width, (pixels) => {
    for (let place = 0; place < values.length; place++) {
      const entry = 3 * Math.max(0, Math.min(255, Math.floor((values[place] - low) * scale)));
      for (let n = 0; n < 3; n++) pixels[4 * place + n] = colours[entry + n];
    }
  });
}

// Draw labels on a canvas, a pixel each.
export function drawLabels(canvas, [height, width], labels, colours) {
  paint(canvas, height, width, (pixels) => {
    for (let place = 0; place < labels.length; place++) {
      for (let n = 0; n < 3; n++) pixels[4 * place + n] = colours[3 * labels[place] + n];
    }
  });
}

// Draw colours (height, width, 3) on a canvas.
export function drawColours(canvas, [height, width], shades) {
  paint(canvas, height, width, (pixels) => {
    for (let place = 0; place < height * width; place++) {
      for (let n = 0; n < 3; n++) pixels[4 * place + n] = shades[3 * place + n];
    }
  });
}

function paint(canvas, height, width, fill) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  image.data.fill(255);
  fill(image.data);
  context.putImageData(image, 0, 0);
}
