// From what is known to what is seen: a section of the page each.

import { ARRIVALS_MAX, changed, known, now, ROWS_MAX } from "./state.js";
import { area, bars, line, Plot, scale, steps } from "./plot.js";
import { byId, element, put, Table, terms, write } from "./table.js";
import { ago, count, hash, long, many, NONE, peer, percent, reason, said, short, si, unit } from "./words.js";

const WINDOWS = [["10 s", "10s"], ["60 s", "60s"], ["15 min", "15min"]];
const column = (head, text, more) => ({ head, text, ...more });
const figure = (head, text, more) => ({ head, text, n: true, ...more });
const credit = (side, window) => known.status.credited[side][window];
const isOwn = (miner) => miner === known.status?.node.miner;
const minerName = (miner) => (isOwn(miner) ? "this node" : hash(miner));
const minerMark = (r) => (isOwn(r.miner) ? "own" : "hash");
const isHead = (r) => r.head || known.heads.some((head) => head.unit === r.unit);
const since = (ms) => long((now() - ms) / 1000);
const judged = { audited: "audited", unaudited: "not drawn", void: "void" };

const rates = new Table("rates", [
	column("attempts/s, TOPS", (r) => r.name, { mark: (r) => `key ${r.key}` }),
	...WINDOWS.map(([name, w]) => figure(name, (r) => si(r.rate(w)), { sub: (r) => si(r.tops(w)) })),
]);
const receipts = new Table("receipts", [
	column("Receipt", (r) => (isHead(r) ? "head" : "share"), { mark: (r) => (isHead(r) ? "own" : ""), sub: (r) => hash(r.unit) }),
	column("Miner", (r) => minerName(r.miner), { mark: minerMark }),
	column("Judged", (r) => judged[r.state] ?? said(r.state), { mark: (r) => `state ${Object.hasOwn(judged, r.state) ? r.state : ""}` }),
	figure("Epoch", (r) => count(r.epoch)),
	figure("Spread", (r) => short(r.age_ms)),
	figure("Ago", (r) => since(r.at)),
], "No receipt has arrived yet.", (r) => r);
const reasons = new Table("reasons", [
	column("Reason", ([word]) => reason(word)),
	figure("Count", ([, n]) => count(n), { bar: ([, n, most]) => n / most, mark: () => "warn" }),
], "Nothing was turned away.");
const rejections = new Table("rejections", [
	column("Why", (r) => reason(r.reason), { sub: (r) => said(r.detail) }),
	column("From", (r) => (r.miner ? minerName(r.miner) : peer(r.peer_id)), { mono: true, sub: (r) => said(r.stage) }),
	figure("Ago", (r) => since(r.at_ms)),
]);
const of = (text) => (text === NONE ? "" : `of ${text}`);
const devices = new Table("devices", [
	column("Device", (d) => said(d.device.name), {
		mark: (d) => (d.benched || d.hung ? "warn" : ""),
		sub: (d) => [d.label, d.device.path, d.hung ? "hangs" : d.benched && `gets no work: ${d.benched}`].filter(Boolean).map(said).join(" · "),
	}),
	figure("Rate", (d) => `${si(d.tops)} TOPS`, { sub: (d) => `${percent(d.busy_share)} busy` }),
	figure("Power", (d) => unit(d.health.power_watts, "W"), { sub: (d) => of(unit(d.health.power_limit_watts, "W")) }),
	figure("Temperature", (d) => unit(d.health.temperature_celsius, "°C")),
	figure("Memory", (d) => si(d.health.memory_used_bytes, "B"), { sub: (d) => of(si(d.health.memory_total_bytes, "B")) }),
	figure("Clock", (d) => unit(d.health.clock_mhz, "MHz")),
	figure("Hits", (d) => count(d.hits), { sub: (d) => `${si(d.attempts)} attempts` }),
	figure("Checked", (d) => count(d.checked), { sub: (d) => `${count(d.queued)} waiting` }),
], "This node has no device.");
const ledger = new Table("ledger", [
	column("Miner", (r) => minerName(r.miner), { mark: minerMark, sub: (r) => (r.banned ? "banned" : "") }),
	figure("Operations", (r) => si(r.credit), { sub: (r) => percent(r.part), bar: (r) => r.part }),
	figure("Shares", (r) => count(r.shares)),
	figure("Heads", (r) => count(r.heads)),
	figure("Void", (r) => count(r.void_shares), { mark: (r) => (r.void_shares > 0 ? "warn" : "") }),
], "Nobody has earned anything yet.");
const STATES = [
	["waiting", "for heads on top", ""],
	["due", "to be sent now", ""],
	["delivered", "taken by the aggregator", "good"],
	["dead", "refused; see tops-node outbox", "warn"],
	["void", "delivered, and void later", "warn"],
];
const outbox = new Table("outbox", [
	column("State", (r) => r[0], { sub: (r) => r[1] }),
	figure("Receipts", (r) => count(r[2]), { bar: (r) => r[3], mark: (r) => r[4] }),
]);
const peers = new Table("peers", [
	column("Peer", (p) => peer(p.peer_id), { mono: true, sub: (p) => `${p.outbound ? "to" : "from"} ${said(p.address).replace(/\/p2p\/.*/, "")}` }),
	column("Runs", (p) => said(p.agent), { sub: (p) => (p.node ? (p.in_step ? "in step" : "not in step") : "not a node") }),
	figure("Height", (p) => count(p.height)),
	figure("Ping", (p) => (p.ping_ms === null ? NONE : short(p.ping_ms))),
	figure("Score", (p) => unit(p.score, "", 1), { mark: (p) => (p.score < 0 ? "warn" : "") }),
	figure("Connected", (p) => long(p.connected_secs)),
], "No peer is connected.");

const plots = {
	rate: new Plot("rate", ["fill", "claim", "credit", "proof"]),
	height: new Plot("height", ["fill", "proof", "cursor"]),
	spacing: new Plot("spacing", ["bars", "own", "aim", "cursor"]),
	difficulty: new Plot("difficulty", ["fill", "proof", "cursor"]),
	arrivals: new Plot("arrivals", ["bars", "bad"]),
};

function sentence(s) {
	const network = said(s.network.name);
	const height = count(s.tip.height);
	const company = s.nodes > 0 ? `with ${many(s.nodes, "node")}` : "alone";
	if (s.sync.state === "heads") return `Catching up on ${network}: height ${height} of ${count(s.sync.target)}, ${company}.`;
	const what = s.node.verify_only ? "Verifying" : s.mining_paused ? "Mining is paused. Following" : s.mining ? "Mining on" : "Not mining now. Following";
	return `${what} ${network} at height ${height}, ${s.nodes > 0 && s.sync.state === "in_step" ? "in step " : ""}${company}.`;
}

/** What the network credited of what the devices ran, in words. */
function honest(s) {
	if (s.node.verify_only) return "This node verifies and mines nothing.";
	const ran = s.hash_rate.attempts_per_second_15min;
	const got = credit("own", "15min").attempts_per_second;
	if (!(ran > 0)) return "";
	const span = long(Math.min(900, s.node.uptime_seconds));
	return `Of the ${si(ran)} attempts/s that the devices ran in the last ${span}, ${si(got)} were credited: ${percent(got / ran)}. Luck evens out with time.`;
}

/** The heads whose parent is known too, with the seconds between. */
function spaced() {
	const heads = known.heads.slice(1);
	return [heads, heads.map((head, i) => Math.max(0, (head.timestamp_ms - known.heads[i].timestamp_ms) / 1000))];
}

const sections = {
	status() {
		const s = known.status;
		const c = s.counters;
		write("sentence", sentence(s));
		write("rate", si(s.hash_rate.attempts_per_second_60s));
		write("tops", si(s.hash_rate.tops_60s));
		write("rate-words", honest(s));
		const own = (field) => (w) => credit("own", w)[field];
		rates.show([
			{ name: "ran (claimed)", key: "", rate: (w) => s.hash_rate[`attempts_per_second_${w}`], tops: (w) => s.hash_rate[`tops_${w}`] },
			{ name: "credited", key: "credit", rate: own("attempts_per_second"), tops: own("tops") },
			{ name: "audited here", key: "proof", rate: own("audited_attempts_per_second"), tops: own("audited_tops") },
		]);

		write("height", count(s.tip.height));
		sections.tip();
		const age = s.receipt_age;
		const words = [`${count(c.shares_accepted)} accepted`, `${count(c.shares_audited)} audited`];
		if (age.count > 0) words.push(`spread p50 ${short(age.p50_ms)}, p99 ${short(age.p99_ms)}`);
		if (known.missed > 0) words.push(`${count(known.missed)} not told`);
		write("receipts-words", words.join(" · "));
		const all = Object.entries(s.rejected).sort((a, b) => b[1] - a[1]).slice(0, ROWS_MAX);
		reasons.show(all.map(([word, n]) => [word, n, all[0][1]]));
		write("rejected-words", `${count(c.receipts_rejected)} in all · ${many(s.bans, "miner")} banned`);

		const o = s.outbox;
		const sum = Math.max(1, STATES.reduce((sum, [state]) => sum + o[state], 0));
		outbox.show(STATES.map(([state, words, mark]) => [state, words, o[state], o[state] / sum, mark === "warn" && o[state] === 0 ? "" : mark]));
		write("outbox-words", o.evicted > 0 ? `${count(o.evicted)} dropped for want of room` : `${count(c.bridge_retries)} sent again`);
		node(s);
		title();
		pause();
	},

	tip() {
		const s = known.status;
		const tip = known.heads.findLast((head) => head.root === s.tip.root);
		const [, gaps] = spaced();
		const mean = gaps.length > 0 ? gaps.reduce((a, b) => a + b) / gaps.length : null;
		terms("tip", [
			["root", hash(s.tip.root), "", "mono"],
			["found by", tip ? minerName(tip.miner) : NONE, "", tip && isOwn(tip.miner) ? "own" : "mono"],
			["difficulty", si(Number(s.tip.attempts_a_head)), "attempts a head"],
			["share", si(2 ** 256 / (Number(s.tip.next_share_target) + 1)), "attempts a share"],
			["spacing", unit(mean, "s", 1), `aim ${unit(s.network.spacing_secs, "s")}`],
			["network", si(credit("network", "60s").attempts_per_second), "attempts/s credited"],
			["weight", si(Number(s.tip.work)), "attempts in the chain"],
			["undone", count(s.counters.heads_undone), "heads"],
		]);
	},

	rate() {
		const points = known.rates;
		const first = points.find(Boolean);
		if (!first) return;
		const top = 1.15 * points.reduce((top, p) => (p ? Math.max(top, p[1], p[2]) : top), 0);
		const y = scale(0, top);
		const end = Date.now();
		const span = Math.max(60_000, end - first[0]);
		const stride = Math.ceil(points.length / 300);
		const drawn = points.filter((p, i) => !p || i % stride === 0);
		const curve = (field) => drawn.map((p) => p && [1 - (end - p[0]) / span, y(p[field])]);
		const proof = curve(3);
		plots.rate.draw({ fill: area(proof), claim: line(curve(1)), credit: line(curve(2)), proof: line(proof) });
		write("rate-top", top > 0 ? si(top) : "");
		write("rate-span", `last ${long(Math.round(span / 1000))}`);
		plots.rate.say(`Hash rate, last ${long(span / 1000)}: now ${si(points.at(-1)?.[1])} attempts a second`);
	},

	heads() {
		const [heads, gaps] = spaced();
		const n = heads.length;
		sections.tip();
		if (n === 0) return;
		const tip = heads[n - 1];
		const from = heads[0];
		write("chain-words", `last ${many(n, "head")}, ${count(heads.filter((head) => isOwn(head.miner)).length)} by this node`);

		const up = scale(from.height, tip.height);
		const climb = heads.flatMap((head, i) => [heads[i - 1], head].filter(Boolean).map((h) => [when(head, heads), up(h.height)]));
		plots.height.draw({ fill: area(climb), proof: line(climb) });
		tell("height", "Height", `${count(from.height)} to ${count(tip.height)} in ${long((tip.timestamp_ms - from.timestamp_ms) / 1000)}`);

		const aim = known.status.network.spacing_secs;
		const sorted = gaps.toSorted((a, b) => a - b);
		const y = scale(0, Math.max(sorted[n - 1], aim * 1.5));
		const by = (own) => bars(gaps.map((gap, i) => (isOwn(heads[i].miner) === own ? y(gap) : null)), barSlots(n));
		plots.spacing.draw({ bars: by(false), own: by(true), aim: `M0 ${y(aim)}H1000` });
		tell("spacing", "Spacing", `median ${unit(sorted[n >> 1], "s", 1)}, aim ${unit(aim, "s")}`);

		const hard = heads.map((head) => Number(head.attempts));
		const [low, high] = [Math.min(...hard), Math.max(...hard)];
		const path = steps(hard.map(scale(low * 0.9, high * 1.05)));
		plots.difficulty.draw({ fill: `${path}V100H0Z`, proof: path });
		tell("difficulty", "Difficulty, attempts a head", `${si(hard[0])}, now ${si(hard[n - 1])}`);
	},

	arrivals() {
		const last = Math.floor(Date.now() / 1000);
		const by = new Map(known.arrivals.map((slot) => [slot[0], slot]));
		const all = Array.from({ length: ARRIVALS_MAX }, (_, i) => by.get(last - ARRIVALS_MAX + 1 + i) ?? [0, 0, 0]);
		const y = scale(0, Math.max(4, ...all.map((s) => s[1] + s[2])));
		plots.arrivals.draw({
			bars: bars(all.map((s) => (s[1] > 0 ? y(s[1]) : null))),
			bad: bars(all.map((s) => (s[2] > 0 ? y(s[1] + s[2]) : null)), ARRIVALS_MAX, (i) => (all[i][1] > 0 ? y(all[i][1]) : 100)),
		});
		const sum = (k) => all.reduce((n, s) => n + s[k], 0);
		plots.arrivals.say(`Receipts of the last two minutes: ${count(sum(1))} accepted, ${count(sum(2))} turned away`);
	},

	receipts() {
		receipts.show(known.receipts);
	},

	rejections() {
		byId("last").hidden = known.rejections.length === 0;
		rejections.show(known.rejections);
	},

	checks() {
		const list = byId("checks");
		const checks = Object.entries(known.checks);
		while (list.children.length > checks.length) list.lastChild.remove();
		checks.forEach(([name, words], i) => {
			if (i === list.children.length) {
				list.append(element("li"));
				list.lastChild.append(element("b"), " ", element("span"));
			}
			const item = list.children[i];
			put(item.firstChild, said(name));
			put(item.lastChild, said(words));
			item.classList.toggle("trouble", words !== "ok");
		});
	},

	devices() {
		devices.show(known.devices.slice(0, ROWS_MAX));
		write("devices-words", known.status.device_problem ? said(known.status.device_problem) : many(known.devices.length, "device"));
	},

	peers() {
		const all = known.peers;
		peers.show(all.slice(0, ROWS_MAX));
		const nodes = all.filter((p) => p.node).length;
		write("peers-words", `${many(nodes, "node")}, ${count(all.length - nodes)} other${all.length > ROWS_MAX ? `; ${ROWS_MAX} shown` : ""}`);
	},

	ledger() {
		const rows = known.ledger.map((row) => ({ ...row, credit: Number(row.credit_ops) }));
		const sum = Math.max(1, rows.reduce((sum, row) => sum + row.credit, 0));
		ledger.show(rows.map((row) => ({ ...row, part: row.credit / sum })));
		write("ledger-words", `${many(known.status.miners, "miner")}${known.ledgerMore ? `; the first ${rows.length} shown` : ""}`);
	},

	mines: pause,

	link() {
		const lost = known.link === "lost";
		write("link", { start: "connecting", live: "live", lost: "disconnected", token: "waits for the token" }[known.link]);
		byId("link").className = `link ${known.link}`;
		byId("lost").hidden = !lost;
		document.body.classList.toggle("old", lost);
		write("lost-why", known.why);
		pause();
		title();
		sections.clock();
	},

	/** What changes by time alone. */
	clock() {
		const s = known.status;
		if (known.link === "lost") {
			write("lost-age", s ? `These figures are ${long((Date.now() - known.heardAt) / 1000)} old.` : "");
			const left = Math.ceil((known.retryAt - Date.now()) / 1000);
			write("lost-next", left > 0 ? `Trying again in ${left} s.` : "Trying again …");
		}
		if (!s) return;
		write("tip-age", s.tip.height > 0 ? ago(s.tip.time_ms, now()) : "genesis");
		sections.receipts();
		sections.rejections();
	},
};

function title() {
	const s = known.status;
	const text = known.link === "lost" ? "tops: disconnected" : s ? `${count(s.tip.height)} · ${said(s.network.name)} · tops` : "tops";
	if (document.title !== text) document.title = text;
}

function pause() {
	const button = byId("pause");
	button.hidden = !known.mines;
	button.disabled = known.link !== "live";
	write("pause", known.status?.mining_paused ? "Resume mining" : "Pause mining");
}

function node(s) {
	const rows = [
		["agent", said(s.node.agent)],
		["running for", long(s.node.uptime_seconds)],
		["peer id", said(s.node.peer_id)],
		["miner", said(s.node.miner)],
		["device name", said(s.node.device_did)],
		["network id", said(s.network.id)],
		["work", s.network.shape.map(count).join(" × "), `${si(s.network.ops_an_attempt)} operations an attempt`],
		["reached at", s.node.listening.slice(0, 6).map(said).join("  ") || NONE],
	];
	for (const [name, text] of [["store", s.store_problem], ["damaged store", s.store_set_aside]]) if (text) rows.push([name, said(text), "", "warn"]);
	terms("node", rows);
}

/** Says in words what a plot shows, beside it and to those who do not see it. */
function tell(id, name, words) {
	write(`${id}-top`, words);
	plots[id].say(`${name} of the last heads: ${words}`);
}

/** Where a head stands in time, 0..1. */
function when(head, heads) {
	const from = heads[0].timestamp_ms;
	return Math.min(1, Math.max(0, (head.timestamp_ms - from) / Math.max(1, heads.at(-1).timestamp_ms - from)));
}

/** A few bars stay slim. */
const barSlots = (n) => Math.max(n, 30);

/** Marks a head in all three plots, and says it in words. */
function choose(index) {
	const [heads, gaps] = spaced();
	const head = heads[index];
	const slots = barSlots(heads.length);
	plots.height.cursor(head && when(head, heads));
	plots.spacing.cursor(head && (slots - heads.length + index + 0.5) / slots);
	plots.difficulty.cursor(head && (index + 0.5) / heads.length);
	if (!head) return;
	const words = [`${unit(gaps[index], "s", 1)} after its parent`, `${si(Number(head.attempts))} attempts expected`, `by ${minerName(head.miner)}`];
	write("chain-at", `Height ${count(head.height)}: ${words.join(", ")}, ${ago(head.timestamp_ms, now())}.`);
}

const length = () => Math.max(0, known.heads.length - 1);
plots.height.onChoice(length, choose);
plots.difficulty.onChoice(length, choose);
plots.spacing.onChoice(length, choose, barSlots);

/** Draws what has changed. Most figures mean nothing before the first status; they wait for it. */
export function draw() {
	for (const section of changed) {
		if (known.status === null && !["link", "checks", "clock"].includes(section)) continue;
		changed.delete(section);
		sections[section]?.();
	}
}
