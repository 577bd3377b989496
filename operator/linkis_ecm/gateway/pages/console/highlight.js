// Colours for code: comments, strings, numbers and keywords of the languages that engines run. Pure.

const KEYWORDS = {
  python: "and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield True False None match case",
  sql: "select from where group by order having limit join left right inner outer full on as and or not in is null case when then else end insert into values update set delete create table view drop alter with union all distinct between like exists over partition cast",
  scala: "val var def class object trait extends with if else for while do match case import package new return yield try catch finally throw this super null true false type lazy implicit override private protected sealed abstract",
  javascript: "const let var function return if else for while do switch case break continue new class extends import export from default try catch finally throw async await yield typeof instanceof in of null undefined true false this super",
  r: "function if else for while repeat break next return TRUE FALSE NULL NA Inf NaN in library require",
  shell: "if then else elif fi for in do done while until case esac function return export local echo exit",
};
const FAMILY = { py: "python", python: "python", python3: "python", py3: "python", pyspark: "python", sql: "sql", hql: "sql", jdbc: "sql", scala: "scala", spark: "scala", javascript: "javascript", typescript: "javascript", js: "javascript", ts: "javascript", r: "r", sh: "shell", shell: "shell", bash: "shell" };
const COMMENT = { python: "#.*", r: "#.*", shell: "#.*", sql: "--.*|/\\*[\\s\\S]*?(?:\\*/|$)", scala: "//.*|/\\*[\\s\\S]*?(?:\\*/|$)", javascript: "//.*|/\\*[\\s\\S]*?(?:\\*/|$)" };
// Longer code is shown plain: colours must not make typing slow.
const LONGEST = 50_000;

/** [[kind, text], …]; kind is "" for plain text. */
export function parts(code, runType) {
  const family = FAMILY[String(runType).toLowerCase()];
  if (!family || code.length > LONGEST) return [["", code]];
  const words = new Set(KEYWORDS[family].split(" "));
  const strings = family === "python" ? `"""[\\s\\S]*?(?:"""|$)|'''[\\s\\S]*?(?:'''|$)|` : "";
  const pattern = new RegExp(`(?<comment>${COMMENT[family]})|(?<string>${strings}"(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?)|(?<number>\\b\\d[\\d_.]*(?:[eE][+-]?\\d+)?\\b)|(?<word>[A-Za-z_][A-Za-z0-9_]*)`, "g");
  const found = [];
  let at = 0;
  for (const match of code.matchAll(pattern)) {
    const { comment, string, number, word } = match.groups;
    const kind = comment !== undefined ? "comment" : string !== undefined ? "string" : number !== undefined ? "number" : words.has(family === "sql" ? word.toLowerCase() : word) ? "keyword" : "";
    if (!kind) continue;
    if (match.index > at) found.push(["", code.slice(at, match.index)]);
    found.push([kind, match[0]]);
    at = match.index + match[0].length;
  }
  found.push(["", code.slice(at)]);
  return found;
}
