//! `tops-node` without a command: join the network and mine, or with `--verify-only` keep it honest.

use crate::cli::{Answer, Failure};
use crate::config::{Config, LogForm};
use crate::net::remembered::{FILE, Remembered};
use crate::settings::Layers;
use crate::{progress, telemetry};

/// Runs a node until it is told to stop.
pub fn run(layers: &Layers, json: bool) -> Result<Answer, Failure> {
    let mut config = Config::new(layers)?;
    if json {
        config.logging.form = LogForm::Json;
    }
    telemetry::start(&config.logging);
    if config.logging.form == LogForm::Text {
        progress::show();
    }
    let remembers = Remembered::open(Some(config.data_dir.join(FILE))).peers().next().is_some();
    if config.waits_for_a_caller() && !remembers {
        tracing::warn!("no --bootstrap: waiting for a peer to call; with --alone this node mines on its own chain until one does");
    }
    crate::run::run(config)?;
    Ok(Answer::yes("stopped", serde_json::json!({ "stopped": true })))
}
