// Renders the JSON Schemas of OpenAPI 3.1, and makes examples of them. Pure, except that it creates elements.

import { el, prose } from "./dom.js";

const REF = "#/components/schemas/";
// The depth to which a recursive schema is followed: examples are made whole, not as parts are opened.
const EXAMPLE_DEPTH = 6;

/** The schema without references and without null: {schema, name, nullable}; several ways stay as they are. */
function plain(doc, given) {
  let schema = given ?? {};
  let name = "";
  let nullable = false;
  // Each step removes one reference or one anyOf; the bound also ends a document with a cycle of references.
  for (let step = 0; step < 20; step += 1) {
    if (schema.$ref) {
      name = schema.$ref.replace(REF, "");
      const { $ref, ...beside } = schema;
      schema = { ...(doc.components?.schemas?.[name] ?? {}), ...beside };
    } else if (schema.anyOf?.some((option) => option.type === "null")) {
      nullable = true;
      const { anyOf, ...beside } = schema;
      const options = anyOf.filter((option) => option.type !== "null");
      schema = options.length === 1 ? { ...options[0], ...beside } : { ...beside, anyOf: options };
    } else {
      break;
    }
  }
  return { schema, name, nullable };
}

/** What may stand there, in words: "string", "EngineInfo", "list of string or null". */
export function typeOf(doc, given) {
  const { schema, name, nullable } = plain(doc, given);
  const words = name || typeWords(doc, schema);
  return nullable ? `${words} or null` : words;
}

function typeWords(doc, schema) {
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return [...new Set(options.map((option) => typeOf(doc, option)))].join(" or ");
  const types = [schema.type ?? []].flat();
  if (!types.length) return schema.properties ? "object" : "anything";
  return types
    .map((type) => {
      if (type === "array") return schema.items ? `list of ${typeOf(doc, schema.items)}` : "list";
      if (type === "object" && typeof schema.additionalProperties === "object") {
        return `object of ${typeOf(doc, schema.additionalProperties)}`;
      }
      return type;
    })
    .join(" or ");
}

/** What a value must keep to, in short words. */
export function facts(doc, given) {
  const { schema } = plain(doc, given);
  const found = [];
  const value = (one) => JSON.stringify(one);
  if (schema.enum) found.push(`one of ${schema.enum.map(value).join(", ")}`);
  if (schema.const !== undefined) found.push(`always ${value(schema.const)}`);
  found.push(...bounds(schema.minimum, schema.maximum, ""));
  found.push(...bounds(schema.minLength, schema.maxLength, " characters"));
  found.push(...bounds(schema.minItems, schema.maxItems, " entries"));
  found.push(...bounds(schema.minProperties, schema.maxProperties, " entries"));
  if (schema.pattern) found.push(`matches ${schema.pattern}`);
  const byPattern = Object.keys(schema.patternProperties ?? {});
  if (byPattern.length) found.push(`names match ${byPattern.join(" or ")}`);
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") {
    found.push(`default ${value(schema.default)}`);
  }
  return found;
}

function bounds(low, high, unit) {
  if (low !== undefined && high !== undefined) return [`${low} to ${high}${unit}`];
  if (low !== undefined) return [`at least ${low}${unit}`];
  if (high !== undefined) return [`at most ${high}${unit}`];
  return [];
}

/** One named value: a parameter, or a property of an object. `depth` opens what is nested near the top; `asked` is
 * whether the caller gives the value: of an answer it says nothing to him that a field is always there. */
export function field(doc, { name, schema: given, required, where, asked, depth = 0 }) {
  const { schema } = plain(doc, given);
  const words = schema.description;
  const told = facts(doc, given);
  return el(
    "li",
    { class: "field" },
    el(
      "div",
      { class: "signature" },
      el("code", { class: "name" }, name),
      el("span", { class: "type" }, typeOf(doc, given)),
      where ? el("span", { class: "where" }, where) : null,
      required && asked ? el("span", { class: "required" }, "required") : null,
    ),
    words ? el("p", {}, prose(words)) : null,
    told.length ? el("p", { class: "facts" }, told.join(" · ")) : null,
    nested(doc, given, asked, depth),
  );
}

/** The fields of a schema: of an object its own, of a list its entries'. Null where it has none. */
export function fields(doc, given, asked, depth = 0) {
  const { schema } = plain(doc, given);
  if (schema.properties) {
    const required = new Set(schema.required ?? []);
    const entries = Object.entries(schema.properties);
    // Required fields first, each group in the document's order.
    const ordered = [...entries.filter(([name]) => required.has(name)), ...entries.filter(([name]) => !required.has(name))];
    return el(
      "ul",
      { class: "fields" },
      ordered.map(([name, one]) => field(doc, { name, schema: one, required: required.has(name), asked, depth })),
    );
  }
  if (schema.items) return fields(doc, schema.items, asked, depth);
  if (typeof schema.additionalProperties === "object") return fields(doc, schema.additionalProperties, asked, depth);
  const options = (schema.anyOf ?? schema.oneOf ?? []).map((option) => fields(doc, option, asked, depth)).filter(Boolean);
  return options.length ? el("div", {}, options) : null;
}

/** What is inside a field, filled in when it is opened: a schema may hold itself. */
function nested(doc, given, asked, depth) {
  if (!holdsFields(doc, given)) return null;
  const made = el("details", {}, el("summary", {}, `Fields of ${typeOf(doc, given).replace(/^(list|object) of | or null$/g, "")}`));
  const fill = () => {
    if (made.open && made.childElementCount === 1) made.append(fields(doc, given, asked, depth + 1));
  };
  made.addEventListener("toggle", fill);
  if (depth === 0) {
    made.open = true;
    fill();
  }
  return made;
}

function holdsFields(doc, given, depth = 0) {
  if (depth > EXAMPLE_DEPTH) return false;
  const { schema } = plain(doc, given);
  if (schema.properties) return Object.keys(schema.properties).length > 0;
  const inner = [schema.items, schema.additionalProperties, ...(schema.anyOf ?? schema.oneOf ?? [])];
  return inner.some((one) => one && typeof one === "object" && holdsFields(doc, one, depth + 1));
}

/** A value to begin with: what is required, and nothing that is not. `known` gives values by name. */
export function example(doc, given, known = () => undefined, depth = 0) {
  const { schema } = plain(doc, given);
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.enum) return schema.enum[0];
  const option = (schema.anyOf ?? schema.oneOf)?.[0];
  if (option) return example(doc, option, known, depth);
  const type = [schema.type ?? (schema.properties ? "object" : "string")].flat()[0];
  if (type === "object") {
    const made = {};
    if (depth < EXAMPLE_DEPTH) {
      for (const name of schema.required ?? []) {
        made[name] = known(name) ?? example(doc, schema.properties?.[name], known, depth + 1);
      }
    }
    return made;
  }
  if (type === "array") {
    return schema.items && depth < EXAMPLE_DEPTH ? [example(doc, schema.items, known, depth + 1)] : [];
  }
  if (type === "integer" || type === "number") return schema.minimum ?? 0;
  return type === "boolean" ? false : type === "null" ? null : "";
}
