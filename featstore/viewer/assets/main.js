// The page: the address behind # says what is shown, every control changes it, and this draws what has changed.

import { json } from "./api.js";
import * as browse from "./browse.js";
import { load as loadColours } from "./colours.js";
import { at, complain, fill, make, upright } from "./dom.js";
import { listen } from "./keys.js";
import * as look from "./look.js";
import { MODES, format, parse, state } from "./state.js";

const LISTED = ["dataset", "version", "where", "sort", "page"];
const LOOKED = ["dataset", "version", "image", "mode", "a", "b", "clusters", "mask"];
const LABELS = ["Similarity", "PCA", "Clusters", "Norm", "Artifact", "Residual"];
const SWITCHES = [
  ["over", "over", "Overlay", "maps over the photograph (o)"], ["grid", "on", "Grid", "patch grid on the photograph (g)"],
  ["mask", "on", "Labels", "labels on the photograph (m)"],
  ["range", "fitted", "Stretch", "colours from the smallest to the largest value (r)"],
];

let store = { datasets: [], sorts: [] };

const dataset = () => store.datasets.find((each) => each.dataset === state.dataset);
const versions = () => dataset()?.versions ?? [];

// Change the state and show it; `push` makes it a step that the browser's Back undoes.
export function change(changes, push = false) {
  const hash = format(changes);
  if (push) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
  show();
}

// Show what the address says.
async function show(first = false) {
  const next = parse(location.hash);
  next.dataset = store.datasets.some((each) => each.dataset === next.dataset) ? next.dataset : store.datasets[0]?.dataset ?? "";
  const built = store.datasets.find((each) => each.dataset === next.dataset)?.versions ?? [];
  const newest = [...built].sort((one, other) => (one.created < other.created ? 1 : -1))[0];
  if (!next.version) next.version = newest?.name ?? "none";
  const differs = (name) => first || next[name] !== state[name];
  const [listed, looked] = [LISTED.some(differs), LOOKED.some(differs)];
  Object.assign(state, next);
  controls();
  if (listed) await browse.load(first ? state.image : undefined);
  browse.mark();
  if (looked && state.image) {
    await look.look(versions());
    ahead();
  } else if (state.image) {
    look.draw();
  }
}

// Fetch the next image's features while nobody waits.
async function ahead() {
  const { image } = state;
  await new Promise((done) => setTimeout(done, 400));
  if (image !== state.image) return;
  const there = browse.shown.images[browse.shown.images.findIndex((each) => each.image_id === image) + 1];
  if (there && there.image_id !== image) look.prefetch(there.image_id, versions());
}

function controls() {
  document.body.classList.toggle("looking", Boolean(state.image));
  document.title = state.image ? `${state.image} · featstore` : "featstore";
  at("look").hidden = !state.image;
  at("name").textContent = state.image;
  fill(at("dataset"), store.datasets.map((each) => [each.dataset, `${each.dataset} (${each.images.toLocaleString("en")})`]), state.dataset);
  const said = versions().map(({ name, method, tag }) => [name, [name, tag, method].filter(Boolean).join(" · ")]);
  fill(at("version"), [...said, ["none", "photographs only"]], state.version);
  at("where").value = state.where;
  const sorts = store.sorts.flatMap((name) => [[name, name], [`-${name}`, `${name}, largest first`]]);
  fill(at("sort"), [["", "image_id"], ...sorts.slice(1)], state.sort);
  for (const button of at("modes").children) {
    Object.assign(button, { ariaPressed: String(button.value === state.mode), disabled: state.version === "none" });
  }
  for (const button of at("switches").children) button.setAttribute("aria-pressed", String(Boolean(state[button.value])));
}

export async function step(by) {
  try {
    const there = await browse.neighbour(by);
    if (there) change({ image: there[0], page: there[1] });
  } catch (error) {
    complain(error);
  }
}

export const turn = (by) => change({ page: Math.max(1, Math.min(browse.shown.pages, browse.shown.page + by)) }, true);
export const toggle = (name) => {
  const on = SWITCHES.find(([own]) => own === name)[1];
  change({ [name]: state[name] ? "" : on });
};

function wire() {
  at("dataset").addEventListener("change", (event) => {
    history.pushState(null, "", `#${new URLSearchParams({ dataset: event.target.value })}`);
    show();
  });
  at("version").addEventListener("change", (event) => change({ version: event.target.value, a: "", b: "", patch: "", page: 1 }, true));
  at("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ where: at("where").value.trim(), page: 1 }, true);
  });
  at("sort").addEventListener("change", () => change({ sort: at("sort").value, page: 1 }, true));
  at("back").addEventListener("click", () => turn(-1));
  at("on").addEventListener("click", () => turn(1));
  at("page").addEventListener("change", () => turn((Number.parseInt(at("page").value, 10) || 1) - browse.shown.page));
  at("grid").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    change({ image: link.dataset.image, page: browse.shown.page }, !state.image);
  });
  at("close").addEventListener("click", () => change({ image: "", patch: "" }, true));
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("help").addEventListener("click", () => at("keys").showModal());
  at("columns").addEventListener("click", columns);
  at("modes").append(...MODES.map((mode, n) => make("button", { type: "button", value: mode, textContent: LABELS[n], title: `key ${n + 1}` })));
  at("modes").addEventListener("click", (event) => event.target.value && change({ mode: event.target.value }));
  at("switches").append(...SWITCHES.map(([name, , text, title]) => make("button", { type: "button", value: name, textContent: text, title })));
  at("switches").addEventListener("click", (event) => event.target.value && toggle(event.target.value));
  window.addEventListener("popstate", () => show());
  window.addEventListener("unhandledrejection", (event) => complain(event.reason));
  listen({ change, step, turn, toggle });
}

async function columns() {
  try {
    const found = await json("columns");
    const cell = (text) => make("td", {}, text);
    at("meanings").querySelector("tbody").replaceChildren(
      ...found.map(({ name, type, meaning }) => make("tr", {}, make("td", {}, make("code", { textContent: name })), cell(type), cell(meaning))),
    );
    at("meanings").showModal();
  } catch (error) {
    complain(error);
  }
}

async function start() {
  wire();
  look.begin(change);
  try {
    [store] = await Promise.all([json("store"), loadColours()]);
  } catch (error) {
    complain(error);
    return;
  }
  at("root").textContent = upright(store.root);
  at("root").title = store.root;
  if (!store.datasets.length) {
    complain("nothing is indexed in this store yet: featstore index NAME --source DIR adds a data set");
    return;
  }
  await show(true);
}

start();
