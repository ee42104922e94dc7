//! `tops-node doctor`: looks at everything that a node needs, and says what is wrong and what to do.
//!
//! ```text
//!   configuration ─▶ is a node of ours running? ─▶ clock, ports, devices, data, peers, aggregator, limits ─▶ checks ─▶ table, exit code
//! ```
//!
//! It works beside a running node, which it asks, and without one. It changes nothing but that a store is opened as a node's start opens it,
//! and only while no node works in the directory. Every wait has a limit.

mod around;
mod here;

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::node::Node;
use crate::cli::{Answer, Failure};
use crate::config::Config;
use crate::settings::{Layers, one_line};

/// How long a running node may take to answer.
const NODE_PATIENCE: Duration = Duration::from_secs(5);

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    /// The node works; somebody should look at this.
    Warn,
    /// The node does not work, or not as it was told to.
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    about: &'static str,
    state: State,
    found: String,
    /// What to do about it; empty when nothing is.
    advice: String,
}

fn ok(about: &'static str, found: impl Into<String>) -> Check {
    Check { about, state: State::Ok, found: found.into(), advice: String::new() }
}

fn warn(about: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { about, state: State::Warn, found: found.into(), advice: advice.into() }
}

fn fail(about: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { about, state: State::Fail, found: found.into(), advice: advice.into() }
}

/// What is there beside this process.
enum Other {
    /// Nothing that matters.
    Nobody,
    /// A node works in the data directory, and HTTP is off, has another address, or does not answer.
    Silent,
    /// A node that answers.
    Running { status: Value },
}

impl Other {
    fn status(&self) -> Option<&Value> {
        match self {
            Self::Running { status } => Some(status),
            Self::Nobody | Self::Silent => None,
        }
    }
    /// Whether a node works in the data directory.
    fn works(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
}

/// Looks at everything.
pub fn run(layers: &Layers) -> Result<Answer, Failure> {
    let config = match Config::new(layers) {
        Ok(config) => config,
        // Nothing else can be looked at without it.
        Err(fault) => return Ok(answer(&[fail("configuration", fault.0, "mend it: `tops-node config` shows what is in force and where it came from")])),
    };
    let mut checks = vec![ok("configuration", format!("network {} ({})", config.network_name, config.network.tag().to_hex()))];
    let (other, said) = other(&config);
    checks.extend(said);
    checks.extend(here::clock(&config, other.status()));
    checks.extend(here::data(&config, &other));
    checks.push(here::open_files());
    checks.extend(here::devices(&config));
    checks.extend(around::ports(&config, &other));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| anyhow::Error::from(e).context("the system gives no threads"))?;
    checks.extend(runtime.block_on(around::peers(&config, other.status())));
    checks.extend(runtime.block_on(around::aggregator(&config, other.status())));
    // A name server that does not answer does not keep the process.
    runtime.shutdown_background();
    Ok(answer(&checks))
}

/// Whether a node of ours runs, and what it says of itself.
fn other(config: &Config) -> (Other, Vec<Check>) {
    let locked = here::locked(&config.data_dir);
    let silent = |why: String| {
        if locked {
            let found = format!("one works in {} and cannot be asked", config.data_dir.display());
            (Other::Silent, vec![warn("node", found, why)])
        } else {
            (Other::Nobody, vec![ok("node", "none is running here")])
        }
    };
    let Some(address) = config.http else { return silent("its HTTP interface is off: say with --http where it answers".into()) };
    let Ok(node) = Node::at(address, config.api_token.clone(), NODE_PATIENCE) else { return silent("no client could be made".into()) };
    let (status, ready) = match (node.look("/v1/status"), node.look("/readyz")) {
        (Ok((StatusCode::OK, status)), Ok((_, ready))) if status["network"]["id"].is_string() => (status, ready),
        (Ok((StatusCode::UNAUTHORIZED, _)), _) => return silent("it wants its API token: give it with --api-token or TOPS_API_TOKEN".into()),
        (Ok((_, body)), _) => return silent(format!("it says: {}", one_line(body["error"].as_str().unwrap_or("nothing that a node says")))),
        (Err(fault), _) => return silent(fault.to_string()),
    };
    let id = config.network.id().to_hex();
    if status["network"]["id"] != id.as_str() {
        let name = status["network"]["name"].as_str().unwrap_or_default();
        let advice = format!("say --network {name} to look at that one, or --http for another");
        return (Other::Nobody, vec![warn("node", format!("the node on {address} is of another network, {}", one_line(name)), advice)]);
    }
    if !locked {
        let advice = "say with --data-dir where it keeps its data";
        let found = format!("the node on {address} works in another data directory than {}", config.data_dir.display());
        let told = vec![warn("node", found, advice)];
        return (Other::Running { status }, told);
    }
    let uptime = super::table::span(status["node"]["uptime_seconds"].as_f64().unwrap_or(0.0) as u64);
    let mut told = vec![ok("node", format!("running for {uptime} at height {}", status["tip"]["height"]))];
    if let Some(checks) = ready["checks"].as_object() {
        for (what, word) in checks.iter().filter(|(_, word)| *word != "ok") {
            told.push(fail("node", format!("it is not ready: {what}"), one_line(word.as_str().unwrap_or("it does not say why"))));
        }
    }
    (Other::Running { status }, told)
}

fn answer(checks: &[Check]) -> Answer {
    let worst = checks.iter().map(|check| check.state).max().unwrap_or(State::Ok);
    let width = checks.iter().map(|check| check.about.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { about, state, found, advice } in checks {
        let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
        text.push_str(&format!("{:<4}  {about:<width$}  {found}{advice}\n", state.word()));
    }
    let number = |state| checks.iter().filter(|check| check.state == state).count();
    text.push_str(&match worst {
        State::Ok => "everything is well".to_owned(),
        State::Warn => format!("nothing is broken; warnings: {}", number(State::Warn)),
        State::Fail => format!("broken: {}, warnings: {}", number(State::Fail), number(State::Warn)),
    });
    let rows: Vec<Value> = checks
        .iter()
        .map(|c| json!({ "about": c.about, "state": c.state.word().to_lowercase(), "found": c.found, "advice": (!c.advice.is_empty()).then_some(&c.advice) }))
        .collect();
    Answer { text, json: json!({ "ok": worst < State::Fail, "checks": rows }), yes: worst < State::Fail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_a_no_and_warnings_are_not() {
        let fine = answer(&[ok("clock", "right"), warn("peers", "none", "wait")]);
        assert!(fine.yes && fine.json["ok"] == true && fine.text.contains("warn  peers  none: wait"), "{}", fine.text);
        let broken = answer(&[ok("clock", "right"), fail("ports", "4069 is taken", "stop the other")]);
        assert!(!broken.yes && broken.json["checks"][1]["state"] == "fail", "{}", broken.json);
        assert_eq!(broken.json["checks"][0]["advice"], Value::Null);
    }
}
