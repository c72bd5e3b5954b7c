// Elements.

export const at = (id) => document.getElementById(id);

// Return a new element with properties and children; names with a dash are attributes.
export function make(kind, given = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(given)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

// Fill a select with [value, text] pairs, in groups where they come as [label, pairs].
export function fill(select, entries, value) {
  const option = ([own, said]) => make("option", { value: own, textContent: said });
  select.replaceChildren(
    ...entries.map(([own, said]) =>
      Array.isArray(said) ? make("optgroup", { label: own }, ...said.map(option)) : option([own, said])),
  );
  select.value = value;
}

export function complain(error) {
  at("error").hidden = !error;
  at("error").textContent = error ? `${error.message ?? error}` : "";
}

// Return a path for a box that cuts it off at its beginning (direction: rtl), where its slashes would change places.
export const upright = (path) => `\u200e${path}\u200e`;
