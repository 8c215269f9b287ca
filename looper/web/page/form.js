// A form made from the server's own description of its inputs, kept in step with the URL.

import { HELP, modelWords } from "./help.js";

const SHOWN = ["prompt", "bpm", "variations", "max_duration", "model_version", "output_format", "seed"]; // the rest fold away
const el = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
export { el };

const words = (name) => (name === "bpm" ? "BPM" : name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " "));

/** Inputs in order, from an OpenAPI document of Cog: [{name, type, title, description, default, minimum, maximum, enum, required}]. */
export function inputs(openapi) {
  const { Input, ...schemas } = openapi.components.schemas;
  const whole = ({ allOf = [], ...rest }) =>
    Object.assign({}, ...allOf.map(({ $ref }) => schemas[$ref.split("/").pop()]), rest);
  return Object.entries(Input.properties)
    .map(([name, property]) => ({ ...whole(property), name, order: property["x-order"] ?? 99, required: Input.required?.includes(name) }))
    .sort((a, b) => a.order - b.order);
}

function control(input) {
  const { name, type, minimum, maximum, required } = input;
  const shared = { id: `in-${name}`, name, required: Boolean(required) || ["integer", "number"].includes(type) };
  if (input.enum) return el("select", shared, ...input.enum.map((v) => el("option", { value: v, textContent: v })));
  if (type === "boolean") return el("input", { ...shared, type: "checkbox", required: false });
  if (type === "integer" || type === "number") {
    return el("input", { ...shared, type: "number", min: minimum ?? "", max: maximum ?? "", step: type === "integer" ? 1 : "any" });
  }
  return required ? el("textarea", { ...shared, rows: 3 }) : el("input", { ...shared, type: "text" });
}

const tidy = (description = "") => description.replace(/[\s.]*$/, ".").replace(/^\.$/, "");

function field(input) {
  const node = control(input);
  const { minimum, maximum } = input;
  const ours = HELP[input.name];
  const range = minimum !== undefined && maximum !== undefined ? ` ${minimum} to ${maximum}.` : "";
  const label = el("label", { htmlFor: node.id, textContent: ours?.label ?? words(input.name) });
  const help = el("small", { id: `${node.id}-help`, textContent: `${ours?.help ?? tidy(input.description)}${range}`.trim() });
  node.setAttribute("aria-describedby", help.id);
  return el("div", { className: `field ${input.name}` }, label, node, help);
}

/** A box below the seed: a new one each time, which is drawn by the server and told here. */
function freshSeed(seed) {
  const box = el("input", { type: "checkbox", id: "fresh", checked: true });
  seed.closest(".field").append(el("label", { className: "check" }, box, "A new one each time"));
  const update = () => { seed.required = !box.checked; };
  box.addEventListener("change", update);
  seed.addEventListener("input", () => { box.checked = false; update(); }); // who types one wants that one
  update();
  return { box, update };
}

/** Say below the choice of a model what plays under each name, `models` {name: facts}. */
function tellModel(select, models) {
  const said = document.getElementById(`${select.id}-help`);
  for (const option of select.options) {
    const facts = models[option.value];
    if (facts?.here && facts.model !== option.value) option.textContent = `${option.value}: plays ${facts.model}`;
    else if (facts && !facts.here) option.textContent = `${option.value}: not here`;
  }
  const update = () => { said.textContent = modelWords(select.value, models[select.value]); };
  select.form.addEventListener("input", update);
  update();
}

/** Fill `form`; returns {read(), write(values), hash(values), tellSeed(seed)}. `models` says what plays under each name. */
export function build(form, list, models = {}) {
  const shown = list.filter(({ name }) => SHOWN.includes(name));
  const folded = list.filter(({ name }) => !SHOWN.includes(name));
  const more = el("details", {}, el("summary", { textContent: "More settings" }), el("div", { className: "fields" }, ...folded.map(field)));
  const submit = el("button", { type: "submit", id: "make", className: "primary", textContent: "Make loops" });
  form.replaceChildren(...shown.map(field), ...(folded.length ? [more] : []), submit);
  form.addEventListener("invalid", () => { more.open ||= !!more.querySelector(":invalid"); }, true);
  const { seed, model_version: model } = form.elements;
  const fresh = seed && freshSeed(seed);
  if (model) tellModel(model, models);

  const node = ({ name }) => form.elements.namedItem(name);
  const value = (input) => {
    if (input.type === "boolean") return node(input).checked;
    if (input.name === "seed" && fresh.box.checked) return input.default ?? -1;
    return ["integer", "number"].includes(input.type) ? Number(node(input).value) : node(input).value;
  };
  const set = (input, given) => {
    if (input.type === "boolean") node(input).checked = String(given) === "true";
    else if (input.name === "seed") setSeed(Number(given));
    else if (!input.enum || input.enum.includes(given)) node(input).value = given;
  };
  const setSeed = (given) => {
    fresh.box.checked = !(given >= 0);
    seed.value = given >= 0 ? given : "";
    fresh.update();
  };
  return {
    /** Tell the seed that was drawn, without asking for it again; one that somebody typed meanwhile stays. */
    tellSeed: (drawn) => { if (seed && drawn >= 0 && fresh.box.checked) seed.value = drawn; },
    read: () => Object.fromEntries(list.map((input) => [input.name, value(input)])),
    write: (values) => {
      list.forEach((input) => set(input, values[input.name] ?? input.default ?? ""));
      form.dispatchEvent(new Event("input")); // as if typed: whoever watches the form hears of it
    },
    /** What differs from the defaults, as a URL's fragment. */
    hash: (values) => `#${new URLSearchParams(list
      .filter(({ name, default: usual }) => values[name] !== undefined && values[name] !== usual)
      .map(({ name }) => [name, values[name]]))}`,
  };
}
