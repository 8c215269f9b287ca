// A form made from the server's own description of its inputs, kept in step with the URL.

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

function field(input) {
  const node = control(input);
  const { minimum, maximum } = input;
  const range = minimum !== undefined && maximum !== undefined ? ` ${minimum} to ${maximum}.` : "";
  const label = el("label", { htmlFor: node.id, textContent: words(input.name) });
  const help = el("small", { id: `${node.id}-help`, textContent: `${tidy(input.description)}${range}` });
  node.setAttribute("aria-describedby", help.id);
  return el("div", { className: `field ${input.name}` }, label, node, help);
}

const tidy = (description = "") => description.replace(/[\s.]*$/, ".").replace(/^\.$/, "");

/** Fill `form`; returns {read(), write(values), hash(values)}. */
export function build(form, list) {
  const shown = list.filter(({ name }) => SHOWN.includes(name));
  const folded = list.filter(({ name }) => !SHOWN.includes(name));
  const more = el("details", {}, el("summary", { textContent: "More settings" }), el("div", { className: "fields" }, ...folded.map(field)));
  const submit = el("button", { type: "submit", id: "make", className: "primary", textContent: "Make loops" });
  form.replaceChildren(...shown.map(field), ...(folded.length ? [more] : []), submit);
  form.addEventListener("invalid", () => { more.open ||= !!more.querySelector(":invalid"); }, true);

  const node = ({ name }) => form.elements.namedItem(name);
  const value = (input) => {
    if (input.type === "boolean") return node(input).checked;
    return ["integer", "number"].includes(input.type) ? Number(node(input).value) : node(input).value;
  };
  const set = (input, given) => {
    if (input.type === "boolean") node(input).checked = String(given) === "true";
    else if (!input.enum || input.enum.includes(given)) node(input).value = given;
  };
  return {
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
