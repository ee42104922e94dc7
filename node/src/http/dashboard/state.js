// What the page knows: the last answers of the node and short lists of what it told, whose oldest goes when they are full.
// What is new since the last frame is in `changed`.

/** Receipts shown. */
export const RECEIPTS_MAX = 24;
/** Turned-away receipts shown. */
export const REJECTIONS_MAX = 12;
/** Rows of a table of peers or miners; the rest is told as a number. */
export const ROWS_MAX = 50;
/** Heads in the plots. */
export const HEADS_MAX = 90;
/** Points of the rate's plot: a quarter of an hour by the second. */
export const RATES_MAX = 900;
/** Seconds of arrivals in the plot. */
export const ARRIVALS_MAX = 120;

export const known = {
	/** `live`, `lost`, `token`, or `start` before the first word. */
	link: "start", why: "", retryAt: 0, heardAt: 0,
	status: null, checks: {}, heads: [], peers: [], devices: [], ledger: [], ledgerMore: false, mines: false,
	receipts: [], rejections: [],
	/** `[ms on the page's clock, ran, credited, audited]`; `null` is a gap. */
	rates: [],
	/** `[second, accepted, turned away]`. */
	arrivals: [],
	/** The node's clock minus this one, ms. */
	ahead: 0,
	missed: 0,
};

export const changed = new Set();
const mark = (...sections) => sections.forEach((section) => changed.add(section));

/** The node's time now. */
export const now = () => Date.now() + known.ahead;

function push(list, item, max) {
	list.push(item);
	if (list.length > max) list.splice(0, list.length - max);
}

function arrival(which) {
	const second = Math.floor(Date.now() / 1000);
	let last = known.arrivals.at(-1);
	if (last === undefined || last[0] !== second) {
		last = [second, 0, 0];
		push(known.arrivals, last, ARRIVALS_MAX);
	}
	last[which] += 1;
	mark("arrivals");
}

const events = {
	status(status) {
		known.status = status;
		known.ahead = status.at_ms - Date.now();
		const credited = status.credited.own["60s"];
		push(known.rates, [Date.now(), status.hash_rate.attempts_per_second_10s, credited.attempts_per_second, credited.audited_attempts_per_second], RATES_MAX);
		mark("status", "rate", "arrivals");
	},
	share(share) {
		known.receipts.unshift({ ...share, state: share.audited ? "audited" : "unaudited", at: now(), fresh: true });
		if (known.receipts.length > RECEIPTS_MAX) known.receipts.length = RECEIPTS_MAX;
		arrival(1);
		mark("receipts");
	},
	head() {
		wanted.heads = true;
	},
	false_root(fraud) {
		for (const receipt of known.receipts) if (fraud.banned && receipt.miner === fraud.miner) receipt.state = "void";
		wanted.ledger = true;
		mark("receipts");
	},
	peers() {
		wanted.peers = true;
	},
	rejection(rejection) {
		known.rejections.unshift(rejection);
		if (known.rejections.length > REJECTIONS_MAX) known.rejections.length = REJECTIONS_MAX;
		arrival(2);
		mark("rejections");
	},
	lagged({ missed }) {
		known.missed += missed;
		mark("receipts");
	},
};

/** Lists that an event made stale; whoever asks the node clears the word. */
export const wanted = { heads: false, peers: false, ledger: false };

/** Takes an event of the stream. Names that are not known are of a newer node, and are nothing to this page. */
export function take(name, data) {
	known.heardAt = Date.now();
	if (Object.hasOwn(events, name)) events[name](data);
}

const answers = {
	heads(answer) {
		// Newest first, from the node; oldest first here. A page that does not join what is known replaces it.
		const fresh = answer.heads.toReversed();
		const joint = known.heads.findIndex((head) => head.root === fresh[0]?.prev_hash);
		known.heads = (joint >= 0 ? known.heads.slice(0, joint + 1) : []).concat(fresh).slice(-HEADS_MAX);
		return joint >= 0 || answer.next_from === null || fresh.length === HEADS_MAX;
	},
	ledger(answer) {
		known.ledger = answer.ledger;
		known.ledgerMore = answer.next !== null;
	},
	rejections(answer) {
		known.rejections = answer.last.slice(0, REJECTIONS_MAX);
	},
	receipts(answer) {
		// What arrived while this was asked stays where it is; the states of all are those of the store.
		const states = new Map(answer.receipts.map((receipt) => [receipt.unit, receipt.state]));
		for (const receipt of known.receipts) receipt.state = states.get(receipt.unit) ?? receipt.state;
		if (known.receipts.length > 0) return;
		known.receipts = answer.receipts
			.map((receipt) => ({ ...receipt, at: receipt.timestamp_ms }))
			.sort((a, b) => b.at - a.at)
			.slice(0, RECEIPTS_MAX);
	},
};

/** Takes an answer, most by the name of its field. `false` when the list has a gap and should be asked for whole. */
export function learn(name, answer) {
	mark(name);
	if (Object.hasOwn(answers, name)) return answers[name](answer) !== false;
	known[name] = answer[name];
	return true;
}

export function setLink(link, why = "", retryAt = 0) {
	if (known.link === "live" && link !== "live") push(known.rates, null, RATES_MAX);
	Object.assign(known, { link, why, retryAt });
	mark("link");
}
