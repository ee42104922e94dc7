//! What must be true when mining has stopped. Each failure is one sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::run::{AGREE_WITHIN, Options, Scenario, Summary, Yard, get};
use crate::aggregator::Received;

/// Units that were in the stores of nodes, by the node's number.
pub(super) type Flushed = BTreeMap<usize, BTreeSet<String>>;

/// Seconds a head that no run exceeds on average: ten heads a minute. The schedule aims at thirty.
const SECONDS_A_HEAD: u64 = 6;
/// Units that a bridging node may bring again after kill -9: those that were on their way, and those whose answer had come and was not
/// flushed. Delivery is at least once; the aggregator keeps one by the idempotency key.
const IN_THE_AIR: usize = 2 * tops_node::bridge::IN_FLIGHT_MAX;
/// Turned away without blame: a node that was slow or down for a moment sees these from honest peers.
pub(crate) const BLAMELESS: &[&str] = &["stale", "unknown_parent", "ahead_of_clock", "seen"];

/// The bridge's depth that nodes have unless told otherwise (spec §5).
pub(crate) const BRIDGE_DEPTH: u64 = 2;

/// A share as a node lists it.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) epoch: u64,
    pub(crate) state: String,
    pub(crate) own: bool,
    pub(crate) prev_hash: String,
    pub(crate) work_root: String,
}

/// All shares of a node by unit.
pub(crate) async fn shares(http: &reqwest::Client, url: &str) -> anyhow::Result<BTreeMap<String, Share>> {
    let (mut all, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = get(http, &format!("{url}/v1/receipts?limit=256{after}")).await?;
        for row in page["receipts"].as_array().into_iter().flatten() {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let share = Share {
                epoch: row["epoch"].as_u64().unwrap_or(0),
                state: text("state"),
                own: row["own"] == true,
                prev_hash: text("prev_hash"),
                work_root: text("work_root"),
            };
            all.insert(text("unit"), share);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

/// Units that a node lists. They are in its store, and flushed a moment later.
pub(super) async fn flushed(yard: &Yard, node: usize) -> anyhow::Result<BTreeSet<String>> {
    Ok(shares(&yard.http, &yard.nodes[node].url).await?.into_keys().collect())
}

/// Roots of the main chain, by a node.
pub(crate) async fn main_chain(http: &reqwest::Client, url: &str) -> anyhow::Result<BTreeSet<String>> {
    let (mut roots, mut from) = (BTreeSet::new(), None::<u64>);
    loop {
        let from_part = from.map(|h| format!("&from={h}")).unwrap_or_default();
        let page = get(http, &format!("{url}/v1/heads?limit=256{from_part}")).await?;
        for head in page["heads"].as_array().into_iter().flatten() {
            roots.extend(head["root"].as_str().map(str::to_owned));
        }
        match page["next_from"].as_u64() {
            Some(next) => from = Some(next),
            None => return Ok(roots),
        }
    }
}

/// All checks that need the nodes alive.
pub(super) async fn judge(
    yard: &Yard,
    options: &Options,
    before_kill: &Flushed,
    summary: &mut Summary,
    failures: &mut Vec<String>,
) -> anyhow::Result<()> {
    if summary.agreed_after_ms.is_none() {
        failures.push(format!("the nodes did not tell one head and one ledger within {} s", AGREE_WITHIN.as_secs()));
    }
    let mut stores = Vec::new();
    for (i, node) in yard.nodes.iter().enumerate() {
        let status = get(&yard.http, &format!("{}/v1/status", node.url)).await?;
        let stored = shares(&yard.http, &node.url).await?;
        one_node(yard, i, &status, &stored, summary, failures);
        stores.push((status, stored));
    }
    let shown = |status: &Value| (status["tip"]["root"].clone(), status["ledger_digest"].clone());
    if !stores.windows(2).all(|two| shown(&two[0].0) == shown(&two[1].0)) {
        failures.push("after the last deliveries the nodes tell different heads or ledgers".into());
    }
    let height = stores.first().and_then(|(status, _)| status["tip"]["height"].as_u64()).unwrap_or(0);
    summary.heads = height;
    let expected = summary.seconds as u64 / SECONDS_A_HEAD;
    if height < expected {
        failures.push(format!("only {height} heads in {:.0} s, at least {expected} were expected", summary.seconds));
    }

    // Which shares earn: keyed on a main head, or on a head whose parent is main (or genesis).
    let mut main = main_chain(&yard.http, &yard.nodes[0].url).await?;
    main.extend(stores.first().and_then(|(status, _)| status["network"]["genesis"].as_str()).map(str::to_owned));
    let all: BTreeMap<&String, &Share> = stores.iter().flat_map(|(_, stored)| stored).collect();
    let parents: BTreeMap<&str, &str> = all.values().map(|share| (share.work_root.as_str(), share.prev_hash.as_str())).collect();
    let earns = |share: &Share| {
        main.contains(&share.prev_hash) || parents.get(share.prev_hash.as_str()).is_some_and(|parent| main.contains(*parent))
    };

    let killed = yard.killed(options.scenario);
    for (i, node) in yard.nodes.iter().enumerate() {
        let own: Vec<_> = stores[i].1.iter().filter(|(_, share)| share.own).collect();
        summary.acknowledged.insert(node.name.clone(), own.len() as u64);
        if node.miner && own.is_empty() {
            failures.push(format!("{} acknowledged no share", node.name));
        }
        for (unit, share) in own {
            for (other, (_, stored)) in yard.nodes.iter().zip(&stores) {
                // A share of an abandoned branch that missed a dead node, or was flushed in a killed one's last moment, is in no sync: it counts
                // for nobody.
                if (killed.contains(&node.name.as_str()) || killed.contains(&other.name.as_str())) && !earns(share) {
                    continue;
                }
                match stored.get(unit) {
                    None => failures
                        .push(format!("{} lacks share {unit} that {} acknowledged for epoch {}", other.name, node.name, share.epoch)),
                    Some(there) if there.state != share.state => {
                        failures.push(format!("share {unit} is {} at {} and {} at {}", share.state, node.name, there.state, other.name));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    for (node, units) in before_kill {
        for unit in units.iter().filter(|unit| !stores[*node].1.contains_key(*unit)) {
            failures.push(format!("{} had flushed share {unit} before it was killed, and lost it", yard.nodes[*node].name));
        }
    }
    aggregator(yard, options, height, &stores, earns, summary, failures).await
}

/// What one node tells of itself.
fn one_node(yard: &Yard, i: usize, status: &Value, stored: &BTreeMap<String, Share>, summary: &mut Summary, failures: &mut Vec<String>) {
    let node = &yard.nodes[i];
    let counter = |name: &str| status["counters"][name].as_u64().unwrap_or_else(|| panic!("a status has the counter {name}"));
    let own = stored.values().filter(|share| share.own).count() as u64;
    if own < counter("acknowledged") {
        failures.push(format!("{} acknowledged {} shares since its start and lists {own}", node.name, counter("acknowledged")));
    }
    if let Some(path) = status["store_set_aside"].as_str() {
        failures.push(format!("{} put its store aside as damaged: {path}", node.name));
    }
    let audited = stored.values().filter(|share| share.state == "audited").count();
    if !node.miner && counter("shares_audited") == 0 {
        failures.push(format!("{} audited nothing", node.name));
    }
    for (name, what) in [
        ("gossip_rejected", "rejected gossip"),
        ("sync_invalid", "got invalid answers"),
        ("false_roots", "saw false roots"),
        ("false_alerts", "saw false alerts"),
        ("bans", "banned somebody"),
        ("device_mismatches", "has a device that computes wrongly"),
        ("gossip_late_verdicts", "gave late verdicts"),
        ("bridge_refused", "has receipts that the aggregator refused"),
    ] {
        if counter(name) > 0 {
            failures.push(format!("{} {what}: {name} is {}", node.name, counter(name)));
        }
    }
    for (reason, times) in status["rejected"].as_object().into_iter().flatten() {
        if !BLAMELESS.contains(&reason.as_str()) {
            failures.push(format!("{} turned receipts away: {reason} {times} times", node.name));
        }
    }
    let own_heads = counter("acknowledged_heads");
    summary.nodes.insert(
        node.name.clone(),
        json!({
            "role": if node.miner { "miner" } else { "verify-only" },
            "bridges": node.bridges,
            "head": status["tip"]["root"], "height": status["tip"]["height"], "ledger_digest": status["ledger_digest"],
            "own_heads": own_heads, "own_shares": counter("acknowledged"), "late_hits": counter("late_hits"),
            "shares": stored.len(), "audited": audited,
            "rejected": status["rejected"], "age": status["receipt_age"],
            "attempts": status["hash_rate"]["attempts"], "heads_undone": counter("heads_undone"),
            "connections": status["nodes"],
        }),
    );
    let worst = summary.receipt_age_ms["p99"].as_u64().unwrap_or(0);
    if let Some(p99) = status["receipt_age"]["p99_ms"].as_u64().filter(|p99| *p99 >= worst) {
        summary.receipt_age_ms = json!({ "p50": status["receipt_age"]["p50_ms"], "p99": p99, "node": node.name });
    }
}

/// Units that the aggregator refused for good; each says why.
async fn dead_letters(yard: &Yard, url: &str) -> anyhow::Result<BTreeSet<String>> {
    let (mut all, mut after) = (BTreeSet::new(), String::new());
    loop {
        let page = get(&yard.http, &format!("{url}/v1/outbox?state=dead&limit=256{after}")).await?;
        let rows = page["outbox"].as_array().context("reading the dead letters")?;
        let told = rows.iter().filter(|row| row["note"].as_str().is_some_and(|note| !note.is_empty()));
        all.extend(told.filter_map(|row| row["unit"].as_str().map(str::to_owned)));
        match page["next"].as_str() {
            Some(next) => after = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

/// Every audited share that earns and is deep enough is at the aggregator; once, with one bridging node.
async fn aggregator(
    yard: &Yard,
    options: &Options,
    height: u64,
    stores: &[(Value, BTreeMap<String, Share>)],
    earns: impl Fn(&Share) -> bool,
    summary: &mut Summary,
    failures: &mut Vec<String>,
) -> anyhow::Result<()> {
    let received: Received = serde_json::from_value(get(&yard.http, &format!("{}/received", yard.aggregator)).await?)
        .context("reading what the aggregator has")?;
    let depth = BRIDGE_DEPTH;
    for (node, (_, stored)) in yard.nodes.iter().zip(stores).filter(|(node, _)| node.bridges) {
        let dead = dead_letters(yard, &node.url).await?;
        for (unit, share) in stored.iter().filter(|(_, share)| share.state == "audited") {
            let times = received.units.get(unit).and_then(|unit| unit.times.get(&node.name)).copied().unwrap_or(0);
            if times == 0 && earns(share) && height + 1 >= share.epoch + depth && !dead.contains(unit) {
                failures.push(format!("{} did not deliver {unit} of epoch {} at height {height}", node.name, share.epoch));
            }
        }
    }
    let killed = yard.killed(options.scenario);
    let mut in_the_air = 0;
    for (unit, kept) in &received.units {
        for (name, &times) in &kept.times {
            // An aggregator that is killed has taken what it did not answer for any more, whoever brought it.
            let again = times == 2 && (killed.contains(&name.as_str()) || options.scenario == Scenario::Outage);
            in_the_air += usize::from(again);
            if times != 1 && !again {
                failures.push(format!("{name} brought {unit} {times} times to the aggregator"));
            }
        }
        if options.bridges == 1 && kept.times.len() != 1 {
            failures.push(format!("the aggregator got {unit} from {:?}", kept.times));
        }
        summary.delivered_again += kept.times.values().sum::<u64>() - 1;
    }
    if in_the_air > if options.scenario == Scenario::Outage { 2 * IN_THE_AIR } else { IN_THE_AIR } {
        failures.push(format!("the killed node brought {in_the_air} units again, more than can have been in the air"));
    }
    for (why, times) in &received.refused {
        failures.push(format!("the aggregator refused {times} receipts: {why}"));
    }
    summary.delivered = received.units.len() as u64;
    summary.delivery_refused = received.refused;
    if summary.delivered == 0 {
        failures.push("nothing was delivered to the aggregator".into());
    }
    Ok(())
}

/// No log has an ERROR line or a panic.
pub(crate) fn logs(dir: &Path, failures: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return failures.push("the logs cannot be read".into()) };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log")) {
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(fault) => {
                failures.push(format!("{} cannot be read: {fault}", path.display()));
                continue;
            }
        };
        for line in text.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked at")).take(3) {
            failures.push(format!("{}: {line}", path.file_name().unwrap_or_default().to_string_lossy()));
        }
    }
}
