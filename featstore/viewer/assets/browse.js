// The images of a data set or version: one page of thumbnails, filter, order.

import { address, json } from "./api.js";
import { at, complain, make, upright } from "./dom.js";
import { format, state } from "./state.js";

export const shown = { count: 0, page: 1, pages: 1, images: [] };

let asked = 0;

const question = () => ({
  dataset: state.dataset, version: state.version, where: state.where, sort: state.sort,
});

// Get the page that the state names, or the one on which `around` is; false where something newer was asked for meanwhile.
export async function load(around) {
  const mine = ++asked;
  at("grid").setAttribute("aria-busy", "true");
  try {
    const found = await json("images", { ...question(), page: state.page, around });
    if (mine !== asked) return false;
    Object.assign(shown, found);
    complain(null);
    draw();
    return true;
  } catch (error) {
    if (mine === asked) complain(error);
    return false;
  } finally {
    if (mine === asked) at("grid").removeAttribute("aria-busy");
  }
}

function draw() {
  const { count, page, pages, images } = shown;
  at("count").textContent = `${count.toLocaleString("en")} image${count === 1 ? "" : "s"}`;
  at("page").value = page;
  at("page").max = pages;
  at("pages").textContent = `of ${pages.toLocaleString("en")}`;
  at("back").disabled = page <= 1;
  at("on").disabled = page >= pages;
  at("grid").replaceChildren(...images.map(card));
  at("grid").scrollTop = 0;
  mark();
}

function card({ image_id: image, key, value }) {
  const { dataset, version } = state;
  const picture = make("img", { alt: "", loading: "lazy", decoding: "async" });
  picture.src = address("thumbnail", { dataset, version, image, key });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { className: "broken", textContent: "cannot be read" })));
  const name = make("span", { className: "name", textContent: upright(image), title: image });
  const link = make("a", { href: format({ image, page: shown.page }) }, picture, name);
  if (typeof value === "number" && state.sort) {
    link.append(make("span", { className: "number", textContent: Number(value.toPrecision(4)) }));
  }
  link.dataset.image = image;
  return make("li", {}, link);
}

// Mark the image that is open, and bring it into sight.
export function mark() {
  for (const link of at("grid").querySelectorAll("a")) {
    const here = link.dataset.image === state.image;
    if (here === link.hasAttribute("aria-current")) continue;
    if (here) {
      link.setAttribute("aria-current", "true");
      link.scrollIntoView({ block: "nearest" });
    } else {
      link.removeAttribute("aria-current");
    }
  }
}

// Return [image, page] so many places behind the open one, null beyond the ends.
export async function neighbour(step) {
  const place = shown.images.findIndex((each) => each.image_id === state.image);
  if (place < 0) return null;
  const there = shown.images[place + step];
  if (there) return [there.image_id, shown.page];
  const page = shown.page + step;
  if (page < 1 || page > shown.pages) return null;
  const { images } = await json("images", { ...question(), page });
  const edge = images.at(step > 0 ? 0 : -1);
  return edge ? [edge.image_id, page] : null;
}
