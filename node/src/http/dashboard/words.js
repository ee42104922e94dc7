// Figures and names as people read them. What is not known is "-", never a guess.

const PREFIX = ["", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q"];
const whole = new Intl.NumberFormat("en");

/** Longest text of somebody else's that is shown. */
const TEXT_MAX = 160;

export const NONE = "-";

const known = (n) => typeof n === "number" && Number.isFinite(n);

/** Three significant digits and an SI prefix: `67.6 k`. */
export function si(n) {
  const [figure, prefix] = parts(n);
  return prefix ? `${figure} ${prefix}` : figure;
}

/** The same in two parts, for figures whose unit is set smaller. */
export function parts(n) {
  if (!known(n)) return [NONE, ""];
  if (n < 0) return [`-${parts(-n)[0]}`, parts(-n)[1]];
  let power = 0;
  while (n >= 999.5 && power < PREFIX.length - 1) {
    n /= 1000;
    power += 1;
  }
  if (n === 0) return ["0", ""];
  const figure = n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n >= 1 ? n.toFixed(2) : String(Number(n.toPrecision(2)));
  return [power === 0 && Number.isInteger(n) ? String(n) : figure, PREFIX[power]];
}

/** A count, with separators. */
export const count = (n) => (known(n) ? whole.format(n) : NONE);

/** Binary bytes. */
export function bytes(n) {
  if (!known(n)) return NONE;
  const unit = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (n >= 1000 && power < unit.length - 1) {
    n /= 1024;
    power += 1;
  }
  return `${n >= 100 || power === 0 ? n.toFixed(0) : n.toFixed(1)} ${unit[power]}`;
}

/** A share of one. */
export const percent = (x) => (known(x) ? `${(x * 100).toFixed(x > 0 && x < 0.0995 ? 1 : 0)} %` : NONE);

/** A figure with its unit. */
export const unit = (n, name, digits = 0) => (known(n) ? `${n.toFixed(digits)} ${name}` : NONE);

/** Milliseconds, short. */
export function short(ms) {
  if (!known(ms)) return NONE;
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : long(ms / 1000);
}

/** Seconds, in the two largest units. */
export function long(secs) {
  if (!known(secs)) return NONE;
  const s = Math.max(0, Math.floor(secs));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** How long ago; whoever's clock runs ahead is "now". */
export const ago = (ms, now) => (known(ms) ? (now - ms < 1000 ? "now" : `${long((now - ms) / 1000)} ago`) : NONE);

/** The ends of a hash or a key. */
export function hash(hex) {
  if (typeof hex !== "string" || hex === "") return NONE;
  const text = said(hex);
  return text.length > 16 ? `${text.slice(0, 8)}…${text.slice(-4)}` : text;
}

/** The ends of a peer's id; all of one kind begin alike. */
export function peer(id) {
  if (typeof id !== "string" || id === "") return NONE;
  const text = said(id);
  return text.length > 16 ? `${text.slice(0, 4)}…${text.slice(-8)}` : text;
}

/** What somebody else said: one short line, in which no character steers how the rest is drawn. */
export function said(text) {
  if (text === null || text === undefined || text === "") return NONE;
  const line = String(text).slice(0, TEXT_MAX + 1).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "·");
  return line.length > TEXT_MAX ? `${line.slice(0, TEXT_MAX)}…` : line;
}

/** `1 node`, `2 nodes`. */
export const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

/** A reason's word as words. */
export const reason = (word) => said(word).replaceAll("_", " ");
