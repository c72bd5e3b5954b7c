// One tile: the photograph, or a map with its heading, and which patch of it is meant by a place in the photograph.

import { address } from "./api.js";
import { make } from "./dom.js";

export class Panel {
  // `side` is a, b or photo; `place` the part of the photograph that the map shows, as shares of it; `aspect` its width over height.
  constructor({ side, kind, heading, label, place, aspect, picture }) {
    Object.assign(this, { side, kind, label, place, picture });
    this.canvas = make("canvas", { width: 1, height: 1 });
    this.value = make("output", { className: "value" });
    this.held = make("div", { className: "held", hidden: true });
    this.pointed = make("div", { className: "pointed", hidden: true });
    this.map = make("div", { className: "map", tabIndex: 0, role: "img", "aria-label": label });
    this.map.style.setProperty("--ratio", aspect);
    this.map.dataset.side = side;
    this.map.dataset.kind = kind;
    this.map.append(...this.layers(), this.held, this.pointed);
    this.element = make("figure", { className: `panel ${side}` }, make("figcaption", {}, heading, this.value), this.map);
    this.size = null;
  }

  layers() {
    const photo = make("img", { className: "photo", alt: "", src: address("photograph", this.picture) });
    if (this.side === "photo") {
      const { left, top, width, height } = this.place;
      this.frame = make("div", { className: "frame" });
      Object.assign(this.frame.style, {
        left: `${left * 100}%`, top: `${top * 100}%`, width: `${width * 100}%`, height: `${height * 100}%`,
      });
      this.overlay = make("img", { className: "mask", alt: "", hidden: true });
      return [photo, this.overlay, this.frame];
    }
    const { left, top, width, height } = this.place;
    Object.assign(photo.style, {
      left: `${(-left / width) * 100}%`, top: `${(-top / height) * 100}%`, width: `${100 / width}%`, height: `${100 / height}%`,
    });
    return [photo, this.canvas];
  }

  // Return the patch {side, row, column} at a pointer's place, null outside of what features show.
  patchAt(event) {
    const box = this.map.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    const down = (event.clientY - box.top) / box.height;
    const inside = this.side === "photo" ? this.inside({ across, down }) : { across, down };
    if (!this.size || !inside) return null;
    const row = Math.min(this.size.height - 1, Math.floor(inside.down * this.size.height));
    const column = Math.min(this.size.width - 1, Math.floor(inside.across * this.size.width));
    return row >= 0 && column >= 0 ? { side: this.side === "photo" ? "a" : this.side, row, column } : null;
  }

  // Return where in the map a place of the photograph is, as shares; null outside.
  inside({ across, down }) {
    const { left, top, width, height } = this.place;
    const found = { across: (across - left) / width, down: (down - top) / height };
    return found.across >= 0 && found.across < 1 && found.down >= 0 && found.down < 1 ? found : null;
  }

  // Return the place in the photograph of a patch's centre.
  centre({ row, column }) {
    const { left, top, width, height } = this.place;
    return {
      across: left + ((column + 0.5) / this.size.width) * width,
      down: top + ((row + 0.5) / this.size.height) * height,
    };
  }

  // Return the patch {row, column} in which a place of the photograph lies, null outside.
  patchOf(spot) {
    const found = this.size && spot && this.inside(spot);
    if (!found) return null;
    return { row: Math.floor(found.down * this.size.height), column: Math.floor(found.across * this.size.width) };
  }

  // Put one of the two frames around a patch.
  outline(frame, patch) {
    frame.hidden = !patch;
    if (!patch) return;
    const part = this.side === "photo" ? this.place : { left: 0, top: 0, width: 1, height: 1 };
    const [wide, high] = [part.width / this.size.width, part.height / this.size.height];
    Object.assign(frame.style, {
      left: `${(part.left + patch.column * wide) * 100}%`, top: `${(part.top + patch.row * high) * 100}%`,
      width: `${wide * 100}%`, height: `${high * 100}%`,
    });
  }

  // Show the grid of patches on the photograph.
  rule(on) {
    this.frame.classList.toggle("ruled", Boolean(on) && this.size !== null);
    if (this.size) this.frame.style.backgroundSize = `${100 / this.size.width}% ${100 / this.size.height}%`;
  }

  say(text) {
    this.value.textContent = text;
  }
}
