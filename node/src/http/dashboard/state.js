// What the page knows: the last answers of the node and short lists of what it told. No list grows without bound; the oldest goes.
//
//   feed ──▶ take(event) ─┐
//   questions ──▶ learn() ┼─▶ known ──▶ view      what has changed since the last frame is in `changed`

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
  status: null, ready: null, heads: [], peers: null, devices: null, ledger: null, ledgerMore: false, mining: null,
  receipts: [], rejections: [],
  /** `[own clock ms, ran, credited, audited]`; `null` is a gap. */
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

function arrival(which, n = 1) {
  const second = Math.floor(Date.now() / 1000);
  let last = known.arrivals.at(-1);
  if (last === undefined || last[0] !== second) {
    last = [second, 0, 0];
    push(known.arrivals, last, ARRIVALS_MAX);
  }
  last[which] += n;
  mark("arrivals");
}

const window = (status, side, field) => {
  const of = status.credited?.[side]?.["60s"];
  return of ? of[field] : undefined;
};

const events = {
  status(status) {
    const before = known.status;
    if (before && before.node.started_at_ms !== status.node.started_at_ms) {
      // Another process: its counters begin anew.
      push(known.rates, null, RATES_MAX);
    }
    known.status = status;
    known.ahead = status.at_ms - Date.now();
    const rate = status.hash_rate;
    push(
      known.rates,
      [Date.now(), rate.attempts_per_second_10s, window(status, "own", "attempts_per_second"), window(status, "own", "audited_attempts_per_second")],
      RATES_MAX,
    );
    mark("status", "rate", "arrivals");
  },
  share(share) {
    known.receipts.unshift({
      unit: share.unit, miner: share.miner, epoch: share.epoch, head: share.head === true, state: share.audited ? "audited" : "unaudited",
      at: now(), age: share.age_ms, fresh: true,
    });
    if (known.receipts.length > RECEIPTS_MAX) known.receipts.length = RECEIPTS_MAX;
    arrival(1);
    mark("receipts");
  },
  head() {
    wanted.heads = true;
  },
  acknowledged() {},
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
  ready(answer) {
    known.ready = answer;
  },
  heads(answer) {
    // Newest first, from the node; oldest first here. A page that does not join what is known replaces it.
    const fresh = answer.heads.toReversed();
    const joint = known.heads.findIndex((head) => head.root === fresh[0]?.prev_hash);
    known.heads = (joint >= 0 ? known.heads.slice(0, joint + 1) : []).concat(fresh).slice(-HEADS_MAX);
    return joint >= 0 || fresh[0]?.height === 1;
  },
  peers(answer) {
    known.peers = answer.peers;
  },
  devices(answer) {
    known.devices = answer.devices;
  },
  ledger(answer) {
    known.ledger = answer.ledger;
    known.ledgerMore = answer.next !== null;
  },
  mining(answer) {
    known.mining = answer;
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
      .map((r) => ({ unit: r.unit, miner: r.miner, epoch: r.epoch, head: null, state: r.state, at: r.timestamp_ms, age: null, fresh: false }))
      .sort((a, b) => b.at - a.at)
      .slice(0, RECEIPTS_MAX);
  },
};

/** Takes an answer. `false` when the list has a gap and should be asked for whole. */
export function learn(name, answer) {
  mark(name);
  return answers[name](answer) !== false;
}

export function setLink(link, why = "", retryAt = 0) {
  if (known.link === "live" && link !== "live") push(known.rates, null, RATES_MAX);
  Object.assign(known, { link, why, retryAt });
  mark("link");
}
