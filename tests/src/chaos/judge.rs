//! What must be true when everything is quiet again. Each failure is one sentence.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::memory;
use super::range::{Range, Role, Summary};
use crate::aggregator::Received;
use crate::testnet::checks::{BLAMELESS, BRIDGE_DEPTH, Share, logs, main_chain, shares};
use crate::testnet::run::get;

/// Most resident memory of a process.
const PEAK_MAX: u64 = 300 << 20;
/// Most resident memory of a light node.
const PEAK_LIGHT_MAX: u64 = 150 << 20;
/// Sentences of one kind that are kept; a broken run has thousands.
const TOLD_MAX: usize = 5;

/// The living are asked.
pub(super) async fn judge(range: &Range, summary: &mut Summary, failures: &mut Vec<String>) -> anyhow::Result<()> {
    if summary.agreed_after_ms.is_none() {
        failures.push("the nodes did not come to one head and one ledger".into());
    }
    let mut stores: Vec<(&str, Role, Value, BTreeMap<String, Share>)> = Vec::new();
    for node in range.nodes() {
        let status = get(&range.http, &format!("{}/v1/status", node.url)).await?;
        let stored = shares(&range.http, &node.url).await?;
        one_node(&node.name, &status, &stored, summary, failures);
        let lost: Vec<&String> = node.flushed.iter().filter(|unit| !stored.contains_key(*unit)).collect();
        summary.flushed_before_kills += node.flushed.len() as u64;
        if !lost.is_empty() {
            failures.push(format!("{} had flushed {} shares before it was killed, and lost {}", node.name, node.flushed.len(), lost.len()));
        }
        stores.push((&node.name, node.role, status, stored));
    }
    let Some((first, rest)) = stores.split_first() else { return Ok(()) };
    let told = |status: &Value| (status["tip"]["root"].clone(), status["ledger_digest"].clone());
    for (name, _, status, _) in rest {
        if told(status) != told(&first.2) {
            failures.push(format!("{name} tells another head or ledger than {}", first.0));
        }
    }
    let height = first.2["tip"]["height"].as_u64().unwrap_or(0);
    summary.heads = height;
    if height < summary.secs as u64 / 12 {
        failures.push(format!("only {height} heads in {:.0} s", summary.secs));
    }

    // Which shares earn: keyed on a main head, or on a head whose parent is main (or genesis). The others count for nobody and are in no sync.
    let mut main = main_chain(&range.http, &range.nodes().next().context("no node")?.url).await?;
    main.extend(first.2["network"]["genesis"].as_str().map(str::to_owned));
    let all: BTreeMap<&String, &Share> = stores.iter().flat_map(|(.., stored)| stored).collect();
    let parents: BTreeMap<&str, &str> = all.values().map(|share| (share.work_root.as_str(), share.prev_hash.as_str())).collect();
    let earns = |share: &Share| {
        main.contains(&share.prev_hash) || parents.get(share.prev_hash.as_str()).is_some_and(|parent| main.contains(*parent))
    };
    for (unit, share) in all.iter().filter(|(_, share)| earns(share)) {
        summary.shares += 1;
        for (name, _, _, stored) in &stores {
            match stored.get(*unit) {
                None => tell(failures, format!("{name} lacks share {unit} of epoch {}", share.epoch)),
                Some(there) if there.state == "void" => tell(failures, format!("{name} has made share {unit} void")),
                Some(_) => {}
            }
        }
    }
    let received = get(&range.http, &format!("{}/received", range.places[0].url)).await?;
    let received: Received = serde_json::from_value(received).context("reading what the aggregator has")?;
    summary.delivered = received.units.len() as u64;
    for (why, times) in &received.refused {
        failures.push(format!("the aggregator refused {times} receipts: {why}"));
    }
    // The aggregator keeps its units in memory only, and the plan never kills it.
    for (name, _, _, stored) in stores.iter().filter(|(_, role, ..)| matches!(role, Role::Miner { bridges: true })) {
        for (unit, share) in stored.iter().filter(|(_, share)| share.state == "audited" && earns(share)) {
            let brought = received.units.get(unit).is_some_and(|unit| unit.times.contains_key(*name));
            if !brought && height + 1 >= share.epoch + BRIDGE_DEPTH {
                tell(failures, format!("{name} did not deliver {unit} of epoch {} at height {height}", share.epoch));
            }
        }
    }
    Ok(())
}

fn tell(failures: &mut Vec<String>, sentence: String) {
    let kind = |text: &str| text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    if failures.iter().filter(|told| kind(told) == kind(&sentence)).count() < TOLD_MAX {
        failures.push(sentence);
    }
}

fn one_node(name: &str, status: &Value, stored: &BTreeMap<String, Share>, summary: &mut Summary, failures: &mut Vec<String>) {
    let counter = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
    let own = stored.values().filter(|share| share.own).count() as u64;
    if own < counter("acknowledged") {
        failures.push(format!("{name} acknowledged {} shares since its last start and lists {own}", counter("acknowledged")));
    }
    if let Some(path) = status["store_set_aside"].as_str() {
        failures.push(format!("{name} put its store aside as damaged: {path}"));
    }
    summary.heads_undone = summary.heads_undone.max(counter("heads_undone"));
    for (counted, what) in [
        ("sync_invalid", "got invalid answers"),
        ("false_roots", "saw false roots"),
        ("false_alerts", "saw false alerts"),
        ("bans", "banned somebody"),
        ("device_mismatches", "has a device that computes wrongly"),
    ] {
        if counter(counted) > 0 {
            failures.push(format!("{name} {what}: {counted} is {}", counter(counted)));
        }
    }
    for (reason, times) in status["rejected"].as_object().into_iter().flatten() {
        if !BLAMELESS.contains(&reason.as_str()) {
            failures.push(format!("{name} turned receipts away: {reason} {times} times"));
        }
    }
}

/// What is left when everybody has stopped.
pub(super) fn afterwards(range: &Range, dir: &Path, summary: &mut Summary, failures: &mut Vec<String>) {
    summary.peak_rss_bytes = range.peaks.all().clone();
    for place in &range.places {
        let bound = if place.role == Role::Light { PEAK_LIGHT_MAX } else { PEAK_MAX };
        match summary.peak_rss_bytes.get(&place.name) {
            Some(peak) if *peak > bound => {
                failures.push(format!("{} had {} MB resident, more than {}", place.name, peak >> 20, bound >> 20));
            }
            Some(_) => {}
            None => failures.push(format!("the memory of {} was never seen", place.name)),
        }
    }
    for name in memory::zombies() {
        failures.push(format!("a process ended and was not waited for: {name}"));
    }
    logs(dir, failures);
}
