// From what is known to what is seen. Every text goes in as text; a node is written only when its text has changed.

import { changed, known, now, ROWS_MAX } from "./state.js";
import { area, bars, line, Plot, scale, steps } from "./plot.js";
import { ago, bytes, count, hash, long, many, NONE, parts, peer, percent, reason, said, short, si, unit } from "./words.js";

const at = (id) => document.getElementById(id);
const cache = new Map();
const byId = (id) => {
  let node = cache.get(id);
  if (node === undefined) cache.set(id, (node = at(id)));
  return node;
};

/** Writes a text, if it is another one. */
function put(node, text) {
  if (node.shown === text) return;
  node.shown = text;
  node.textContent = text;
}
const write = (id, text) => put(byId(id), text);

function element(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) put(node, text);
  return node;
}

/** Sets or lifts a class. */
const flag = (node, name, on) => {
  if (node.classList.contains(name) !== on) node.classList.toggle(name, on);
};

/**
 * A table's body whose rows are used again. A column: `text(item)`, perhaps `sub(item)` for a second line, `mark(item)` for a class, `n` for figures,
 * `bar(item)` for a share of one drawn behind. The first column heads its row.
 */
class Rows {
  constructor(id, columns, empty) {
    this.body = byId(id);
    this.columns = columns;
    this.rows = [];
    this.empty = empty;
    this.heads = [...this.body.parentElement.querySelectorAll("thead th")].map((head) => head.textContent);
    this.stacked = this.body.parentElement.classList.contains("stack");
  }

  row() {
    const row = element("tr");
    if (this.stacked) row.setAttribute("role", "row");
    row.cells_ = this.columns.map((column, i) => {
      const cell = element(i === 0 ? "th" : "td", column.n ? "n" : "");
      if (i === 0) cell.scope = "row";
      if (this.stacked) {
        cell.setAttribute("role", i === 0 ? "rowheader" : "cell");
        cell.dataset.head = this.heads[i];
      }
      const main = element("span", column.mono ? "mono" : "");
      const sub = column.sub ? element("small") : null;
      const bar = column.bar ? element("i", "bar") : null;
      cell.append(...[main, sub, bar].filter(Boolean));
      row.append(cell);
      return { cell, main, sub, bar, name: cell.className };
    });
    return row;
  }

  fill(row, item) {
    row.cells_.forEach(({ cell, main, sub, bar, name }, i) => {
      const column = this.columns[i];
      put(main, column.text(item));
      if (sub) put(sub, column.sub(item));
      if (bar) {
        const width = `${(column.bar(item) * 100).toFixed(1)}%`;
        if (bar.style.width !== width) bar.style.width = width;
      }
      const wanted = column.mark ? `${name} ${column.mark(item)}`.trim() : name;
      if (cell.className !== wanted) cell.className = wanted;
    });
  }

  show(items) {
    while (this.rows.length > items.length) this.rows.pop().remove();
    items.forEach((item, i) => {
      if (i === this.rows.length) {
        this.rows.push(this.row());
        this.body.append(this.rows[i]);
      }
      this.fill(this.rows[i], item);
    });
    this.note(items.length);
  }

  note(length) {
    if (this.empty === undefined) return;
    if (length === 0 && !this.none) {
      this.none = element("tr", "none");
      const cell = element("td", "soft", this.empty);
      cell.colSpan = this.columns.length;
      this.none.append(cell);
      this.body.append(this.none);
    } else if (length > 0 && this.none) {
      this.none.remove();
      this.none = null;
    }
  }
}

/** Rows that keep their item, so that a new one can be seen to arrive. */
class Arriving extends Rows {
  constructor(...all) {
    super(...all);
    this.of = new Map();
  }

  show(items) {
    const keep = new Set(items);
    for (const [item, row] of this.of) {
      if (!keep.has(item)) {
        row.remove();
        this.of.delete(item);
      }
    }
    let before = this.body.firstChild;
    for (const item of items) {
      let row = this.of.get(item);
      if (row === undefined) {
        row = this.row();
        row.className = item.fresh ? "fresh" : "";
        this.of.set(item, row);
      }
      this.fill(row, item);
      if (row === before) before = before.nextSibling;
      else this.body.insertBefore(row, before);
    }
    this.note(items.length);
  }
}

const isOwn = (miner) => known.status !== null && miner === known.status.node.miner;
const minerName = (miner) => (isOwn(miner) ? "this node" : hash(miner));
const judged = { audited: "recomputed", unaudited: "not drawn", void: "void" };

const rates = new Rows("rates", [
  { text: (r) => r.name, mark: (r) => `key ${r.key}` },
  ...["10s", "60s", "15min"].map((w) => ({ n: true, text: (r) => si(r.rate(w)), sub: (r) => si(r.tops(w)) })),
]);
const receipts = new Arriving(
  "receipts",
  [
    { mono: true, text: (r) => hash(r.unit), sub: (r) => `${r.head ? "head" : "share"} · epoch ${count(r.epoch)}`, mark: (r) => (r.head ? "head" : "") },
    { text: (r) => minerName(r.miner), mark: (r) => (isOwn(r.miner) ? "own" : "mono") },
    { text: (r) => judged[r.state] ?? said(r.state), mark: (r) => `state ${Object.hasOwn(judged, r.state) ? r.state : ""}` },
    { n: true, text: (r) => short(r.age) },
    { n: true, text: (r) => ago(r.at, now()) },
  ],
  "No receipt has arrived yet.",
);
const reasons = new Rows(
  "reasons",
  [{ text: ([word]) => reason(word) }, { n: true, text: ([, n]) => count(n), bar: ([, n, most]) => n / most, mark: () => "warn" }],
  "Nothing was turned away.",
);
const rejections = new Rows("rejections", [
  { text: (r) => reason(r.reason), sub: (r) => said(r.detail) },
  { mono: true, text: (r) => (r.miner ? minerName(r.miner) : peer(r.peer_id)), sub: (r) => said(r.stage) },
  { n: true, text: (r) => ago(r.at_ms, now()) },
]);
const memory = (h) => (h.memory_used_bytes === null && h.memory_total_bytes === null ? NONE : bytes(h.memory_used_bytes));
const devices = new Rows(
  "devices",
  [
    {
      text: (d) => said(d.device.name), mark: (d) => (d.benched || d.hung ? "trouble" : ""),
      sub: (d) => [d.label, d.device.path, d.hung ? "hangs" : d.benched && `gets no work: ${d.benched}`].filter(Boolean).map(said).join(" · "),
    },
    { n: true, text: (d) => `${si(d.tops)} TOPS`, sub: (d) => `${percent(d.busy_share)} busy` },
    { n: true, text: (d) => unit(d.health.power_watts, "W"), sub: (d) => (d.health.power_limit_watts === null ? "" : `of ${unit(d.health.power_limit_watts, "W")}`) },
    { n: true, text: (d) => unit(d.health.temperature_celsius, "°C") },
    { n: true, text: (d) => memory(d.health), sub: (d) => (d.health.memory_total_bytes === null ? "" : `of ${bytes(d.health.memory_total_bytes)}`) },
    { n: true, text: (d) => unit(d.health.clock_mhz, "MHz") },
    { n: true, text: (d) => count(d.hits), sub: (d) => `${si(d.attempts)} attempts` },
    { n: true, text: (d) => count(d.checked), sub: (d) => `${count(d.queued)} waiting` },
  ],
  "This node has no device.",
);
const ledger = new Rows(
  "ledger",
  [
    { text: (r) => minerName(r.miner), mark: (r) => (isOwn(r.miner) ? "own" : "mono"), sub: (r) => (r.banned ? "banned" : "") },
    { n: true, text: (r) => si(r.credit), sub: (r) => percent(r.part), bar: (r) => r.part },
    { n: true, text: (r) => count(r.shares) },
    { n: true, text: (r) => count(r.heads) },
    { n: true, text: (r) => count(r.void_shares), mark: (r) => (r.void_shares > 0 ? "warn" : "") },
  ],
  "Nobody has earned anything yet.",
);
const outbox = new Rows("outbox", [
  { text: (r) => r.name, sub: (r) => r.words },
  { n: true, text: (r) => count(r.n), bar: (r) => r.part, mark: (r) => r.mark },
]);
const peers = new Rows(
  "peers",
  [
    { mono: true, text: (p) => peer(p.peer_id), sub: (p) => `${p.outbound ? "to" : "from"} ${said(p.address)}` },
    { text: (p) => said(p.agent), sub: (p) => (p.node ? (p.in_step ? "in step" : p.in_step === false ? "not in step" : "node") : "no node") },
    { n: true, text: (p) => count(p.height) },
    { n: true, text: (p) => (p.ping_ms === null ? NONE : `${count(p.ping_ms)} ms`) },
    { n: true, text: (p) => (typeof p.score === "number" ? p.score.toFixed(1) : NONE), mark: (p) => (p.score < 0 ? "warn" : "") },
    { n: true, text: (p) => long(p.connected_secs) },
  ],
  "No peer is connected.",
);

const plots = {
  rate: new Plot(at("plot-rate"), ["fill", "claim", "credit", "proof"]),
  height: new Plot(at("plot-height"), ["fill", "proof", "cursor"]),
  spacing: new Plot(at("plot-spacing"), ["bars", "own", "aim", "cursor"]),
  difficulty: new Plot(at("plot-difficulty"), ["fill", "proof", "cursor"]),
  arrivals: new Plot(at("plot-arrivals"), ["bars", "bad"]),
};

const at60 = (side) => known.status.credited?.[side]?.["60s"];

function sentence(s) {
  const network = said(s.network.name);
  const where = `${network} at height ${count(s.tip.height)}`;
  const company = s.nodes > 0 ? `with ${many(s.nodes, "node")}` : "with no other node";
  if (s.sync.state === "heads") return `Catching up on ${network}: height ${count(s.tip.height)} of ${count(s.sync.target)}, ${company}.`;
  const what = s.node.verify_only ? "Verifying" : s.mining_paused ? "Mining is paused. Following" : s.mining ? "Mining" : "Not mining now. Following";
  return `${what} ${s.node.verify_only || !s.mining ? where : `on ${where}`}, ${s.nodes === 0 ? "alone" : s.sync.state === "in_step" ? `in step ${company}` : company}.`;
}

const sections = {
  status() {
    const s = known.status;
    const c = s.counters;
    write("network", said(s.network.name));
    write("sentence", sentence(s));
    const [attempts, prefix] = parts(s.hash_rate.attempts_per_second_60s);
    write("rate", attempts);
    write("rate-unit", `${prefix}${prefix ? " " : ""}attempts/s`);
    write("tops", si(s.hash_rate.tops_60s));
    const credit = at60("own");
    const quarter = s.credited?.own?.["15min"];
    const ran = s.hash_rate.attempts_per_second_15min;
    write(
      "rate-words",
      s.node.verify_only
        ? "This node verifies and mines nothing."
        : quarter && ran > 0
          ? `Over 15 min the network credited ${si(quarter.attempts_per_second)} attempts/s of the ${si(ran)} that the devices ran: ${percent(quarter.attempts_per_second / ran)}. Luck evens out with time.`
          : "",
    );
    const tops = { "10s": s.hash_rate.tops_10s, "60s": s.hash_rate.tops_60s, "15min": s.hash_rate.tops_15min };
    const of = (field) => (w) => s.credited?.own?.[w]?.[field];
    const rows = [{ name: "ran (claimed)", key: "claim", rate: (w) => s.hash_rate[`attempts_per_second_${w}`], tops: (w) => tops[w] }];
    rows.push({ name: "credited", key: "credit", rate: of("attempts_per_second"), tops: of("tops") });
    rows.push({ name: "audited here", key: "proof", rate: of("audited_attempts_per_second"), tops: of("audited_tops") });
    rates.show(credit ? rows : rows.slice(0, 1));

    write("height", count(s.tip.height));
    write("tip-root", hash(s.tip.root));
    byId("tip-root").title = said(s.tip.root);
    write("tip-difficulty", si(Number(s.tip.attempts_a_head)));
    write("tip-share", si(2 ** 256 / (Number(s.tip.next_share_target) + 1)));
    write("tip-aim", `aim ${unit(s.network.spacing_secs, "s")}`);
    write("tip-network", si(at60("network")?.attempts_per_second));
    write("tip-undone", count(c.heads_undone));

    const age = s.receipt_age;
    write("receipts-words", `${count(c.shares_accepted)} accepted · ${count(c.shares_audited)} recomputed${age.count > 0 ? ` · spread p50 ${short(age.p50_ms)}, p99 ${short(age.p99_ms)}` : ""}`);
    const all = Object.entries(s.rejected).sort((a, b) => b[1] - a[1]);
    const most = all[0]?.[1] ?? 1;
    reasons.show(all.map(([word, n]) => [word, n, most]).slice(0, ROWS_MAX));
    write("rejected-words", `${count(c.receipts_rejected)} in all · ${many(s.bans, "miner")} banned`);

    const o = s.outbox;
    const total = Math.max(1, o.waiting + o.due + o.delivered + o.dead + o.void);
    outbox.show(
      [
        ["waiting", o.waiting, "for heads on top", ""],
        ["due", o.due, "to be sent now", ""],
        ["delivered", o.delivered, "taken by the aggregator", "good"],
        ["dead", o.dead, "refused; see tops-node outbox", o.dead > 0 ? "warn" : ""],
        ["void", o.void, "delivered, and void later", o.void > 0 ? "warn" : ""],
      ].map(([name, n, words, mark]) => ({ name, n, words, mark, part: n / total })),
    );
    write("outbox-words", o.evicted > 0 ? `${count(o.evicted)} dropped for want of room` : `${count(c.bridge_retries)} sent again`);

    node(s);
    title();
    pause();
  },

  rate() {
    const points = known.rates;
    const first = points.find((p) => p !== null);
    if (first === undefined) return;
    let top = 0;
    for (const p of points) if (p !== null) top = Math.max(top, p[1], p[2] ?? 0);
    const y = scale(0, top * 1.15 || 1);
    const end = Date.now();
    const span = Math.max(60_000, end - first[0]);
    const stride = Math.max(1, Math.floor(points.length / 300));
    const curve = (field) => {
      const all = [];
      points.forEach((p, i) => {
        if (p === null) all.push(null);
        else if (p[field] !== undefined && (i % stride === 0 || i === points.length - 1)) all.push([1 - (end - p[0]) / span, y(p[field])]);
      });
      return all;
    };
    plots.rate.draw("fill", area(curve(3)));
    plots.rate.draw("claim", line(curve(1)));
    plots.rate.draw("credit", line(curve(2)));
    plots.rate.draw("proof", line(curve(3)));
    write("rate-top", top > 0 ? si(top * 1.15) : "");
    write("rate-span", `last ${long(Math.round(span / 1000))}`);
    plots.rate.say(`Hash rate over the last ${long(span / 1000)}; now ${si(points.at(-1)?.[1])} attempts a second ran`);
  },

  heads() {
    const heads = known.heads;
    const s = known.status;
    const tip = heads.at(-1);
    write("tip-miner", tip ? minerName(tip.miner) : NONE);
    flag(byId("tip-miner"), "own", tip !== undefined && isOwn(tip.miner));
    // The first head's spacing is not known: its parent is not here.
    const known_ = heads.slice(1);
    const gaps = known_.map((head, i) => Math.max(0, (head.timestamp_ms - heads[i].timestamp_ms) / 1000));
    if (gaps.length === 0) return;
    const n = gaps.length;
    const aim = s?.network.spacing_secs ?? 0;
    const sorted = [...gaps].sort((a, b) => a - b);
    const mean = gaps.reduce((a, b) => a + b, 0) / n;
    write("tip-spacing", unit(mean, "s", 1));
    write("chain-words", `last ${many(n, "head")}, ${many(known_.filter((head) => isOwn(head.miner)).length, "head")} by this node`);

    const from = known_[0].timestamp_ms;
    const span = Math.max(1, tip.timestamp_ms - from);
    const up = scale(known_[0].height, tip.height);
    const climb = [];
    known_.forEach((head, i) => {
      const x = Math.min(1, Math.max(0, (head.timestamp_ms - from) / span));
      if (i > 0) climb.push([x, up(known_[i - 1].height)]);
      climb.push([x, up(head.height)]);
    });
    plots.height.draw("fill", area(climb));
    plots.height.draw("proof", line(climb));
    plots.height.say(`Height from ${count(known_[0].height)} to ${count(tip.height)} in ${long(span / 1000)}`);
    write("height-top", `${count(known_[0].height)} to ${count(tip.height)}`);

    const high = Math.max(sorted.at(-1), aim * 1.5);
    const y = scale(0, high);
    const slots = Math.max(n, 30);
    plots.spacing.slots = slots;
    plots.spacing.draw("bars", bars(gaps.map(y).map((at, i) => (isOwn(known_[i].miner) ? null : at)), slots));
    plots.spacing.draw("own", bars(gaps.map(y).map((at, i) => (isOwn(known_[i].miner) ? at : null)), slots));
    plots.spacing.draw("aim", `M0 ${y(aim)}H1000`);
    write("spacing-top", `mean ${unit(mean, "s", 1)}, aim ${unit(aim, "s")}`);
    plots.spacing.say(`Spacing of the last ${n} heads: median ${unit(sorted[n >> 1], "s", 1)}, longest ${unit(sorted.at(-1), "s", 1)}, aim ${unit(aim, "s")}`);

    const hard = known_.map((head) => Number(head.attempts ?? NaN));
    if (hard.every(Number.isFinite)) {
      const low = Math.min(...hard);
      const top = Math.max(...hard);
      const z = scale(low * 0.9, top * 1.05);
      const ys = hard.map(z);
      const path = steps(ys);
      plots.difficulty.draw("fill", `${path}V100H0Z`);
      plots.difficulty.draw("proof", path);
      write("difficulty-top", `${si(low)} to ${si(top)}`);
      plots.difficulty.say(`Difficulty of the last ${n} heads: ${si(hard[0])} attempts a head at first, ${si(hard.at(-1))} now, between ${si(low)} and ${si(top)}`);
    }
  },

  arrivals() {
    const last = Math.floor(Date.now() / 1000);
    const by = new Map(known.arrivals.map((slot) => [slot[0], slot]));
    const slots = 120;
    const all = Array.from({ length: slots }, (_, i) => by.get(last - slots + 1 + i));
    const top = Math.max(4, ...all.map((s) => (s ? s[1] + s[2] : 0)));
    const y = scale(0, top);
    plots.arrivals.draw("bars", bars(all.map((s) => (s && s[1] > 0 ? y(s[1]) : null)), slots));
    plots.arrivals.draw("bad", bars(all.map((s) => (s && s[2] > 0 ? y(s[1] + s[2]) : null)), slots, (i) => (all[i]?.[1] > 0 ? y(all[i][1]) : 100)));
    const sum = (k) => all.reduce((n, s) => n + (s ? s[k] : 0), 0);
    plots.arrivals.say(`In the last two minutes ${many(sum(1), "receipt")} were accepted and ${count(sum(2))} turned away`);
  },

  receipts() {
    receipts.show(known.receipts);
  },
  rejections() {
    rejections.show(known.rejections);
  },
  ready() {
    const checks = Object.entries(known.ready?.checks ?? {});
    const list = byId("checks");
    while (list.children.length > checks.length) list.lastChild.remove();
    checks.forEach(([name, words], i) => {
      if (i === list.children.length) {
        const item = element("li");
        item.append(element("b"), element("span"));
        list.append(item);
      }
      const item = list.children[i];
      put(item.firstChild, name);
      put(item.lastChild, words === "ok" ? "ok" : said(words));
      flag(item, "trouble", words !== "ok");
    });
  },
  devices() {
    const all = known.devices ?? [];
    devices.show(all.slice(0, ROWS_MAX));
    write("devices-words", known.status?.device_problem ? said(known.status.device_problem) : many(all.length, "device"));
  },
  peers() {
    const all = known.peers ?? [];
    peers.show(all.slice(0, ROWS_MAX));
    const nodes = all.filter((p) => p.node).length;
    write("peers-words", `${many(nodes, "node")}${all.length > nodes ? `, ${count(all.length - nodes)} other` : ""}${all.length > ROWS_MAX ? `, ${ROWS_MAX} shown` : ""}`);
  },
  ledger() {
    const rows = (known.ledger ?? []).map((row) => ({ ...row, credit: Number(row.credit_ops) }));
    const total = rows.reduce((sum, row) => sum + row.credit, 0);
    for (const row of rows) row.part = total > 0 ? row.credit / total : 0;
    ledger.show(rows.slice(0, ROWS_MAX));
    write("ledger-words", `${many(known.status?.miners ?? rows.length, "miner")}${known.ledgerMore ? `, the first ${rows.length} shown` : ""}`);
  },
  mining() {
    pause();
  },

  link() {
    const { link } = known;
    const lost = link === "lost";
    write("link", { start: "connecting", live: "live", lost: "disconnected", token: "waits for the token" }[link]);
    byId("link").className = `link ${link}`;
    byId("lost").hidden = !lost;
    flag(document.body, "old", lost);
    if (lost) write("lost-why", known.why);
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
    if (s) write("tip-age", s.tip.height > 0 ? ago(s.tip.time_ms, now()) : "genesis");
    receipts.show(known.receipts);
    rejections.show(known.rejections);
  },
};

function title() {
  const s = known.status;
  const text = known.link === "lost" ? "tops: disconnected" : s ? `${count(s.tip.height)} · ${said(s.network.name)} · tops` : "tops";
  if (document.title !== text) document.title = text;
}

function pause() {
  const button = byId("pause");
  const can = known.mining?.mines === true && known.link === "live";
  button.hidden = !(known.mining?.mines === true);
  button.disabled = !can;
  write("pause", known.status?.mining_paused ? "Resume mining" : "Pause mining");
}

function node(s) {
  const list = byId("node");
  const rows = [
    ["agent", said(s.node.agent)],
    ["running for", long(s.node.uptime_seconds)],
    ["peer id", said(s.node.peer_id)],
    ["miner", said(s.node.miner)],
    ["device name", said(s.node.device_did)],
    ["network id", said(s.network.id)],
    ["work", `${s.network.shape.map(count).join(" × ")}, ${si(s.network.ops_an_attempt)} operations an attempt`],
    ["reached at", s.node.listening.length > 0 ? s.node.listening.slice(0, 6).map(said).join("  ") : NONE],
  ];
  if (s.store_set_aside) rows.push(["damaged store", said(s.store_set_aside)]);
  while (list.children.length > rows.length * 2) list.lastChild.remove();
  rows.forEach(([name, text], i) => {
    if (i * 2 === list.children.length) list.append(element("dt"), element("dd"));
    put(list.children[i * 2], name);
    put(list.children[i * 2 + 1], text);
  });
}

function choose(index) {
  const heads = known.heads.slice(1);
  const head = index === null ? undefined : heads[index];
  plots.height.cursor(null, 0);
  plots.spacing.cursor(head ? plots.spacing.slots - heads.length + index : null, plots.spacing.slots);
  plots.difficulty.cursor(head ? index : null, heads.length);
  if (head === undefined) return;
  const gap = (head.timestamp_ms - known.heads[index].timestamp_ms) / 1000;
  write("chain-at", `Height ${count(head.height)}: ${unit(Math.max(0, gap), "s", 1)} after its parent, ${si(Number(head.attempts ?? NaN))} attempts expected, by ${minerName(head.miner)}, ${ago(head.timestamp_ms, now())}.`);
  const span = Math.max(1, heads.at(-1).timestamp_ms - heads[0].timestamp_ms);
  plots.height.draw("cursor", `M${((head.timestamp_ms - heads[0].timestamp_ms) / span) * 1000} 0V100`);
}

const slots = () => Math.max(0, known.heads.length - 1);
plots.height.onChoice(slots, choose);
plots.difficulty.onChoice(slots, choose);
plots.spacing.onChoice(
  () => (slots() > 0 ? plots.spacing.slots : 0),
  (i) => choose(i === null ? null : Math.max(0, i - (plots.spacing.slots - slots()))),
);

/** Draws what has changed. */
export function draw() {
  for (const section of changed) {
    // Most figures mean nothing before the first status; they wait for it.
    if (known.status === null && !["link", "ready", "clock"].includes(section)) continue;
    changed.delete(section);
    sections[section]?.();
  }
}
