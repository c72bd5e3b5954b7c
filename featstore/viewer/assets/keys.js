// The keyboard.

import { at } from "./dom.js";
import { move, pin } from "./look.js";
import { MODES, state } from "./state.js";

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const STEPS = { j: 1, k: -1, PageDown: 1, PageUp: -1 };
const SWITCHES = { o: "over", g: "grid", m: "mask", r: "range" };

export function listen({ change, step, turn, toggle }) {
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.closest("input, select, textarea")) {
      if (key === "Escape") target.blur();
      return;
    }
    if (act(event, { key, target, change, step, turn, toggle })) event.preventDefault();
  });
}

// Do what a key says; true where it says something.
function act(event, { key, target, change, step, turn, toggle }) {
  if (key === "?") return at("keys").showModal() ?? true;
  if (key === "/") {
    if (getComputedStyle(at("browse")).display === "none") change({ image: "", patch: "" }, true);
    return at("where").focus() ?? true;
  }
  if (!state.image) {
    if (key === "ArrowLeft" || key === "ArrowRight") return turn(key === "ArrowLeft" ? -1 : 1) ?? true;
    return false;
  }
  const mode = MODES[Number(key) - 1];
  if (mode) return change({ mode }) ?? true;
  if (ARROWS[key]) return move(...ARROWS[key].map((by) => by * (event.shiftKey ? 5 : 1))) ?? true;
  if (STEPS[key]) return step(STEPS[key]) ?? true;
  if (SWITCHES[key]) return toggle(SWITCHES[key]) ?? true;
  if ((key === "Enter" || key === " ") && !target.closest("a, button")) return pin() ?? true;
  if (key === "Escape") return change(state.patch ? { patch: "" } : { image: "" }, !state.patch) ?? true;
  return false;
}
