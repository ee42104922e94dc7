// The page at work: follows the node, asks what the stream does not tell, and draws what changed once a frame.

import { again, ask, follow, Refused, setToken, token } from "./feed.js";
import { changed, HEADS_MAX, known, learn, RECEIPTS_MAX, ROWS_MAX, setLink, take, wanted } from "./state.js";
import { draw } from "./view.js";

/** Script times of frames, ms, for whoever measures; the oldest goes. */
const FRAMES_MAX = 4_096;
/** Heads that are asked for when one is new; a gap is asked for whole. */
const HEADS_A_ROUND = 8;

const frames = [];
let spent = 0;
let asked = false;

/** Has the next frame draw. A page that is not seen draws nothing and keeps only the newest. */
function schedule() {
	if (asked) return;
	asked = true;
	requestAnimationFrame(() => {
		asked = false;
		const began = performance.now();
		draw();
		frames.push(spent + performance.now() - began);
		if (frames.length > FRAMES_MAX) frames.shift();
		spent = 0;
	});
}

/** Does something that belongs to the next frame's time. */
function timed(work) {
	const began = performance.now();
	try {
		return work();
	} finally {
		spent += performance.now() - began;
		schedule();
	}
}

const event = (name, data) => timed(() => take(name, data));

async function round(name, path) {
	try {
		const answer = await ask(path);
		return timed(() => learn(name, answer));
	} catch {
		// The stream says what is wrong; a question that failed is asked again in the next round.
		return true;
	}
}

let asking = false;
async function heads(n) {
	if (asking) return;
	asking = true;
	wanted.heads = false;
	if (!(await round("heads", `/v1/heads?limit=${n}`))) await round("heads", `/v1/heads?limit=${HEADS_MAX}`);
	asking = false;
}
/** What is asked for in rounds: where, and every how many seconds. What an event makes stale is asked for with the next second. */
const LISTS = {
	checks: ["/readyz", 3],
	peers: ["/v1/peers", 5],
	devices: ["/v1/devices", 3],
	ledger: [`/v1/ledger?limit=${ROWS_MAX}`, 8],
	receipts: [`/v1/receipts?limit=${RECEIPTS_MAX * 4}`, 10],
	rejections: ["/v1/rejections", Infinity],
	mines: ["/v1/mining", Infinity],
};

let second = 0;
setInterval(() => {
	second += 1;
	changed.add("clock");
	schedule();
	if (known.link !== "live" || document.hidden) return;
	if (wanted.heads) void heads(HEADS_A_ROUND);
	for (const [name, [path, every]] of Object.entries(LISTS)) {
		if (second % every !== 0 && !wanted[name]) continue;
		wanted[name] = false;
		void round(name, path);
	}
}, 1_000);

follow({
	live() {
		timed(() => setLink("live"));
		dialog.close();
		void heads(HEADS_MAX);
		for (const [name, [path]] of Object.entries(LISTS)) void round(name, path);
	},
	event,
	lost(why, pause) {
		timed(() => setLink("lost", why, Date.now() + pause));
	},
	denied,
});

document.getElementById("again").addEventListener("click", again);
addEventListener("online", again);
document.addEventListener("visibilitychange", () => {
	if (!document.hidden) again();
});

// The token: asked for once, kept until the tab is closed.
const dialog = document.getElementById("token");
let given = null;

function denied() {
	timed(() => setLink("token"));
	document.getElementById("token-wrong").hidden = token() === "";
	if (!dialog.open) dialog.showModal();
	return new Promise((done) => {
		given = done;
	});
}

dialog.addEventListener("close", () => given && dialog.showModal());
document.getElementById("token-form").addEventListener("submit", (event) => {
	event.preventDefault();
	const input = document.getElementById("token-text");
	setToken(input.value.trim());
	input.value = "";
	const done = given;
	given = null;
	done?.();
});

// Pause and resume.
const pause = document.getElementById("pause");
pause.addEventListener("click", async () => {
	pause.disabled = true;
	try {
		const answer = await ask("/v1/mining", { paused: !known.status.mining_paused });
		timed(() => {
			known.status.mining_paused = answer.paused;
			known.status.mining = answer.mining;
			changed.add("status");
		});
	} catch (fault) {
		pause.title = fault instanceof Refused ? fault.message : "The node did not answer.";
		pause.disabled = false;
	}
});

// Colours: as the system, light, dark.
const theme = document.getElementById("theme");
const THEMES = ["auto", "light", "dark"];
const { dataset } = document.documentElement;
function showTheme(chosen) {
	dataset.theme = chosen;
	theme.textContent = chosen[0].toUpperCase() + chosen.slice(1);
	theme.setAttribute("aria-label", `Colours: ${chosen}`);
}
showTheme(dataset.theme ?? "auto");
theme.addEventListener("click", () => {
	const chosen = THEMES[(THEMES.indexOf(dataset.theme) + 1) % THEMES.length];
	showTheme(chosen);
	localStorage.setItem("tops-theme", chosen);
});

// For those who measure and test: the way of an event and of an answer into the page, and what frames cost.
globalThis.dashboard = Object.freeze({ event, answer: (name, body) => timed(() => learn(name, body)), frames, known });
