// The connection to the node: its stream of events, and single questions. By fetch, because only fetch can show the API token.
// A stream that ends is said at once, and asked for again after a growing, jittered pause.

/** The node sends its status once a second; a stream that is silent for so long is dead, whatever TCP thinks. */
const SILENCE_MS = 4_000;
/** A question that takes longer is given up. */
const ANSWER_MS = 10_000;
const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 15_000;
/** The longest line of the stream that is read; a longer one ends the connection. */
const LINE_MAX = 1 << 20;

const TOKEN = "tops-api-token";

/** The node wants a token, and has none or a wrong one. */
export class Denied extends Error {}

/** The node answered that it cannot, with a sentence. */
export class Refused extends Error {}

let kept = "";
export const token = () => kept;
export function setToken(text) {
	kept = text;
	keep(text);
}

/** Kept until the tab is closed, where the browser lets pages keep anything. */
function keep(text) {
	try {
		if (text) sessionStorage.setItem(TOKEN, text);
		return sessionStorage.getItem(TOKEN) ?? "";
	} catch {
		return "";
	}
}
kept = keep();

const headers = (more) => (kept ? { ...more, authorization: `Bearer ${kept}` } : more);

async function judge(response) {
	if (response.status === 401) throw new Denied();
	if (response.ok) return response;
	const body = await response.json().catch(() => ({}));
	throw new Refused(typeof body.error === "string" ? body.error : `the node answered ${response.status}`);
}

/** Asks for JSON, or sends it. `/readyz` answers 503 when the node is not ready: that is an answer too. */
export async function ask(path, body) {
	const sent = body && { method: "POST", body: JSON.stringify(body) };
	const signal = AbortSignal.timeout(ANSWER_MS);
	const response = await fetch(path, { ...sent, headers: headers({ "content-type": "application/json" }), cache: "no-store", signal });
	return path === "/readyz" && response.status === 503 ? response.json() : (await judge(response)).json();
}

/** Reads server-sent events from pieces of text. */
export function reader(event) {
	let rest = "";
	let name = "";
	let data = [];
	return (text) => {
		rest += text;
		let start = 0;
		for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n", start)) {
			const line = rest.slice(start, rest[end - 1] === "\r" ? end - 1 : end);
			start = end + 1;
			if (line === "") {
				if (data.length > 0) event(name || "message", data.join("\n"));
				name = "";
				data = [];
			} else if (line.startsWith("event:")) {
				name = line.slice(6).trim();
			} else if (line.startsWith("data:")) {
				data.push(line.slice(line[5] === " " ? 6 : 5));
			}
		}
		rest = rest.slice(start);
		if (rest.length > LINE_MAX) throw new Error("a line of the stream is too long");
	};
}

/** Follows the node's events for as long as the page is open. `on` is told: live(), event(name, data), lost(why, ms), denied(). */
export async function follow(on) {
	let failed = 0;
	for (;;) {
		let why = "The node ended the connection.";
		try {
			await stream(on, () => {
				failed = 0;
				on.live();
			});
		} catch (fault) {
			if (fault instanceof Denied) {
				await on.denied();
				continue;
			}
			why = fault instanceof Refused ? `The node says: ${fault.message}.` : "The node does not answer.";
		}
		const pause = Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** failed) * (0.75 + Math.random() / 2);
		failed += 1;
		on.lost(why, pause);
		await rest(pause);
	}
}

let wake = () => {};

/** Ends the pause now. */
export const again = () => wake();

const rest = (ms) =>
	new Promise((done) => {
		const timer = setTimeout(done, ms);
		wake = () => {
			clearTimeout(timer);
			done();
		};
	});

async function stream(on, live) {
	const control = new AbortController();
	let silence = setTimeout(() => control.abort(), SILENCE_MS);
	try {
		const response = await judge(
			await fetch("/v1/events", { headers: headers({ accept: "text/event-stream" }), cache: "no-store", signal: control.signal }),
		);
		let first = true;
		const read = reader((name, data) => {
			const value = JSON.parse(data);
			if (first) live();
			first = false;
			on.event(name, value);
		});
		const decoder = new TextDecoder();
		const body = response.body.getReader();
		for (;;) {
			const { done, value } = await body.read();
			if (done) return;
			clearTimeout(silence);
			silence = setTimeout(() => control.abort(), SILENCE_MS);
			read(decoder.decode(value, { stream: true }));
		}
	} finally {
		clearTimeout(silence);
		control.abort();
	}
}
