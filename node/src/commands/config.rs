//! `tops-node config`: the effective configuration, ready to be kept as a file.

use serde_json::{Map, Value, json};

use crate::cli::{Answer, Failure};
use crate::config::{Config, MASK};
use crate::settings::{Kind, Layers, SETTINGS};

/// Prints every setting with its value and source. The text is a TOML file; what is hidden in it is a comment.
pub fn run(layers: &Layers) -> Result<Answer, Failure> {
    let config = Config::new(layers)?;
    let mut text = String::new();
    let mut all = Map::new();
    for shown in &config.shown {
        let kind = SETTINGS.iter().find(|s| s.name == shown.name).map(|s| s.kind);
        let value = match kind {
            Some(Kind::List(_)) => json!(shown.values),
            Some(Kind::Switch) => json!(shown.values.iter().any(|v| matches!(v.as_str(), "true" | "1" | "yes" | "on"))),
            Some(Kind::Value(_)) | None => shown.values.first().map_or(Value::Null, |v| json!(v)),
        };
        let hidden = shown.values.iter().any(|value| value.contains(MASK));
        let line = if hidden {
            format!("# {} = {value}", shown.name)
        } else if value.is_null() {
            format!("# {} is not set", shown.name)
        } else {
            format!("{} = {value}", shown.name)
        };
        text.push_str(&format!("{line:<60} # {}\n", shown.from));
        all.insert(shown.name.into(), json!({ "value": value, "from": shown.from.to_string() }));
    }
    text.push_str(&format!("# network id {}, genesis {}\n", config.network.id(), config.network.genesis()));
    all.insert("network-id".into(), json!({ "value": config.network.id().to_hex(), "from": "network" }));
    Ok(Answer::yes(text, Value::Object(all)))
}
