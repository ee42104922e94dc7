// Figures and names as people read them. What is not known is "-", never a guess.

const PREFIX = " kMGTPEZYRQ";
const whole = new Intl.NumberFormat("en");

/** Longest text of somebody else's that is shown. */
const TEXT_MAX = 160;

export const NONE = "-";

const known = (n) => typeof n === "number" && Number.isFinite(n);

/** Three significant digits, an SI prefix, and a unit: `67.6 k`. */
export function si(n, name = "") {
	if (!known(n)) return NONE;
	let power = 0;
	while (n >= 999.5 && power < PREFIX.length - 1) {
		n /= 1000;
		power += 1;
	}
	const digits = power === 0 && Number.isInteger(n) ? n : n.toPrecision(3);
	return `${digits} ${PREFIX[power].trim()}${name}`.trimEnd();
}

/** A count, with separators. */
export const count = (n) => (known(n) ? whole.format(n) : NONE);

/** A share of one. */
export const percent = (x) => (known(x) ? `${(x * 100).toFixed(x > 0 && x < 0.0995 ? 1 : 0)} %` : NONE);

/** A figure with its unit. */
export const unit = (n, name, digits = 0) => (known(n) ? `${n.toFixed(digits)} ${name}`.trimEnd() : NONE);

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
	const two = (n, name, part, of) => `${Math.floor(n)} ${name}${Math.floor(part) > 0 ? ` ${Math.floor(part)} ${of}` : ""}`;
	if (s < 3600) return two(s / 60, "min", s % 60, "s");
	return s < 86_400 ? two(s / 3600, "h", (s % 3600) / 60, "min") : two(s / 86_400, "d", (s % 86_400) / 3600, "h");
}

/** How long ago; whoever's clock runs ahead is "now". */
export const ago = (ms, now) => (known(ms) ? (now - ms < 1000 ? "now" : `${long((now - ms) / 1000)} ago`) : NONE);

/** The ends of a hash or a key; of a peer's id more of its end, for all of one kind begin alike. */
export const hash = (hex, first = 8) => {
	const text = said(hex);
	return text.length > 16 ? `${text.slice(0, first)}…${text.slice(first - 12)}` : text;
};
export const peer = (id) => hash(id, 4);

/** What somebody else said: one short line, in which no character steers how the rest is drawn. */
export function said(text) {
	const line = String(text ?? "").slice(0, TEXT_MAX + 1).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "·");
	return line.length > TEXT_MAX ? `${line.slice(0, TEXT_MAX)}…` : line || NONE;
}

/** `1 node`, `2 nodes`. */
export const many = (n, one) => `${count(n)} ${n === 1 ? one : `${one}s`}`;

/** A reason's word as words. */
export const reason = (word) => said(word).replaceAll("_", " ");
