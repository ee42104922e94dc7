//! Log lines on standard error: text for people or one JSON object a line.
//!
//! A plain level applies to this project's own rooms; libraries are kept at `warn`, unless the operator writes a filter. No secret has
//! a `Debug` or `Display` that shows it, so none can get here.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogForm, Logging};

/// Rooms that a plain level speaks of.
const OWN: [&str; 4] = ["tops_node", "tops_protocol", "tops_compute", "tops_store"];

/// What libraries may say. The table of peers warns whenever nobody is connected, gossip for each message that a full queue has no room for: the
/// node says the one better, and counts and repeats the other. The database's complaints about a disk are the store's, which says what follows.
const LIBRARIES: &str = "warn,libp2p_kad=error,libp2p_gossipsub=error,sled=off";

/// The filter of a level or of filter directives; the error is half a sentence for an operator.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    let fault = || "it must be error, warn, info, debug, trace, off, or a filter such as info,libp2p=debug".to_owned();
    let level = text.trim().to_ascii_lowercase();
    let directives = match level.as_str() {
        "off" => level,
        "error" => "error".to_owned(),
        "warn" | "info" | "debug" | "trace" => OWN.iter().fold(LIBRARIES.to_owned(), |all, room| format!("{all},{room}={level}")),
        _ if text.contains(['=', ',']) && text.len() <= 1_024 => text.to_owned(),
        _ => return Err(fault()),
    };
    EnvFilter::builder().parse(directives).map_err(|_| fault())
}

/// Starts logging for the whole process; a second call does nothing.
pub fn start(logging: &Logging) {
    let filter = filter(&logging.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // The library's own complaint about a log that cannot be written would go to the same place, and panic.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // The only failure is that a subscriber is there already, which then goes on.
    let _ = match logging.form {
        LogForm::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogForm::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_parse_and_nonsense_does_not() {
        for good in ["info", "TRACE", "off", "info,libp2p=debug", "tops_node=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "tops_node=loud", "info libp2p"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
