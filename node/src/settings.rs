//! Every setting of a node by name, and where its value comes from: command line > environment > file > default.
//!
//! ```text
//! flags ─┐
//! TOPS_* ┼─▶ Layers::pick(name) ─▶ raw text and its source ─▶ config.rs makes one validated Config of it
//! TOML  ─┘
//! ```
//!
//! One table drives the three: `--audit-rate`, `TOPS_AUDIT_RATE` and the key `audit-rate` are the same setting. Nothing here judges a
//! value; a key of the file that is not in the table is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches};

/// The largest configuration file; a longer one is refused.
pub const CONFIG_FILE_MAX: u64 = 64 * 1024;

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value, with its name in the help.
    Value(&'static str),
    /// Any number of values: the flag repeated, a list in the file, separated by commas in the environment.
    List(&'static str),
    /// On or off.
    Switch,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// `audit-rate`: the flag and the key of the file; the variable is `TOPS_AUDIT_RATE`.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Another variable that sets it: the original worker's name.
    pub also: Option<&'static str>,
    /// Whether its value is never shown.
    pub secret: bool,
    /// One line for the help.
    pub help: &'static str,
}

const fn setting(name: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { name, kind, also: None, secret: false, help }
}

/// All of them, in the order in which `config` prints them.
pub const SETTINGS: &[Setting] = &[
    setting("network", Kind::Value("main|dev|FILE"), "Which network: a preset, or a TOML file with its numbers [default: main]"),
    setting("bootstrap", Kind::List("MULTIADDR"), "A peer to join by; repeat for more"),
    setting("listen", Kind::List("MULTIADDR"), "Where to listen [default: TCP and QUIC on port 4069, IPv4 and IPv6]"),
    setting("external-address", Kind::List("MULTIADDR"), "An address under which others reach this node"),
    setting("alone", Kind::Switch, "Mine without having heard from a peer, also on main"),
    setting("mdns", Kind::Switch, "Look for peers on the local network too"),
    setting(
        "relay",
        Kind::Switch,
        "Be reached through a relay when no other node can reach this one (behind a home router), and punch a direct way",
    ),
    setting("data-dir", Kind::Value("DIR"), "Where this node keeps its store and key [default: the XDG data home, tops/<network>]"),
    setting(
        "key-file",
        Kind::Value("FILE"),
        "The miner's secret key (WORKER_SK_HEX gives the key itself) [default: keys/miner.key in the data directory]",
    ),
    setting("identity-file", Kind::Value("FILE"), "Another key for the peer identity [default: the miner's key]"),
    Setting {
        also: Some("DEVICE_DID"),
        ..setting("device-did", Kind::Value("TEXT"), "The device's name in receipts [default: a did:key of the miner's key]")
    },
    setting("verify-only", Kind::Switch, "A light node: no mining, audits on the CPU"),
    setting("backend", Kind::Value("BACKEND"), "What computes [default: auto]"),
    setting("devices", Kind::Value("LIST"), "Which devices of the backend, by number: 0,1 [default: all]"),
    Setting {
        also: Some("AUTOTUNE_TARGET_MS"),
        ..setting("target-ms", Kind::Value("MS"), "How long one launch on a device should take [default: 300]")
    },
    setting("audit-rate", Kind::Value("RATE"), "The least part of shares that is audited under load, above 0 and at most 1 [default: 0.1]"),
    setting("audit-shard", Kind::Value("D:R"), "Beyond that part, audit only units whose number leaves R when divided by D [default: 1:0]"),
    Setting {
        also: Some("AGGREGATOR_URL"),
        ..setting("aggregator-url", Kind::Value("URL"), "Where audited receipts are posted [default: nowhere]")
    },
    setting("bridge", Kind::Value("all|own"), "Which audited receipts are posted [default: all]"),
    setting("bridge-shard", Kind::Value("D:R"), "Post only units whose number leaves R when divided by D [default: 1:0]"),
    setting("bridge-depth", Kind::Value("HEADS"), "Heads on top of a receipt's head before it is posted [default: 2]"),
    setting("http", Kind::Value("ADDRESS|off"), "Where the HTTP interface listens [default: 127.0.0.1:4067]"),
    Setting {
        secret: true,
        ..setting("api-token", Kind::Value("TOKEN"), "Required of HTTP clients as a bearer token; needed to listen beyond loopback")
    },
    setting("retain-epochs", Kind::Value("EPOCHS"), "How many epochs below the tip are kept [default: 1440]"),
    setting("log", Kind::Value("text|json"), "The form of log lines [default: text]"),
    setting("log-level", Kind::Value("LEVEL"), "error, warn, info, debug, trace, or a filter such as info,libp2p=debug [default: info]"),
];

/// The variable that gives the miner's key itself. It is no flag: command lines are seen by others.
pub const KEY_VARIABLE: &str = "WORKER_SK_HEX";

/// The variable that gives the signer of v1 receipts, which carry no key: the original verifier's name.
pub const VERIFY_VARIABLE: &str = "VERIFY_PUBKEY";

impl Setting {
    /// `TOPS_AUDIT_RATE`.
    pub fn variable(&self) -> String {
        format!("TOPS_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).help(self.help).help_heading("Settings (also TOPS_<NAME> and keys of the file)");
        match self.kind {
            Kind::Value(value) if self.name == "api-token" => {
                arg.alias("token").value_name(value).action(ArgAction::Set).allow_hyphen_values(true)
            }
            Kind::Value(value) => arg.value_name(value).action(ArgAction::Set).allow_hyphen_values(true),
            Kind::List(value) => arg.value_name(value).action(ArgAction::Append),
            Kind::Switch => arg.action(ArgAction::SetTrue),
        }
    }
}

/// The flags of some settings, and `--config`.
pub fn args(names: &[&str]) -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("A TOML file with any of these settings")
        .help_heading("Settings (also TOPS_<NAME> and keys of the file)");
    SETTINGS.iter().filter(|s| names.contains(&s.name)).map(Setting::arg).chain([file]).collect()
}

/// The names of all settings.
pub fn all() -> Vec<&'static str> {
    SETTINGS.iter().map(|s| s.name).collect()
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    CommandLine,
    /// This variable.
    Variable(String),
    /// This file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What somebody said of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// One text for a value, `true` or `false` for a switch, any number for a list.
    pub values: Vec<String>,
    /// Who said it.
    pub from: Source,
}

/// A wrong setting: one sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigFault(pub String);

/// The process's environment as far as it is text. A value of no characters counts as not set.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// The real one.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
    }
    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// All sources, ready to be asked.
#[derive(Debug, Default)]
pub struct Layers {
    flags: BTreeMap<&'static str, Vec<String>>,
    environment: Environment,
    file: Option<(PathBuf, BTreeMap<&'static str, Vec<String>>)>,
}

impl Layers {
    /// Collects the flags of `matches` (outermost first: an inner one wins), the environment, and the file that they name.
    pub fn new(matches: &[&ArgMatches], environment: Environment) -> Result<Self, ConfigFault> {
        let mut flags = BTreeMap::new();
        let mut path = environment.get("TOPS_CONFIG").map(PathBuf::from);
        for matches in matches {
            let has = |id: &str| {
                matches!(matches.try_contains_id(id), Ok(true)) && matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine)
            };
            if has("config") {
                path = matches.get_one::<String>("config").map(PathBuf::from);
            }
            for setting in SETTINGS.iter().filter(|s| has(s.name)) {
                let values = match setting.kind {
                    Kind::Switch => vec![matches.get_flag(setting.name).to_string()],
                    Kind::Value(_) | Kind::List(_) => matches.get_many::<String>(setting.name).unwrap_or_default().cloned().collect(),
                };
                flags.insert(setting.name, values);
            }
        }
        let file = path.map(|path| read_file(&path).map(|values| (path, values))).transpose()?;
        Ok(Self { flags, environment, file })
    }

    /// What was said of a setting by the strongest source; `None` when nobody did.
    pub fn pick(&self, name: &str) -> Option<Pick> {
        let setting = SETTINGS.iter().find(|s| s.name == name)?;
        if let Some(values) = self.flags.get(name) {
            return Some(Pick { values: values.clone(), from: Source::CommandLine });
        }
        for variable in [Some(setting.variable()), setting.also.map(str::to_owned)].into_iter().flatten() {
            if let Some(text) = self.environment.get(&variable) {
                let values = match setting.kind {
                    Kind::List(_) => text.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
                    Kind::Value(_) | Kind::Switch => vec![text.to_owned()],
                };
                return Some(Pick { values, from: Source::Variable(variable) });
            }
        }
        let (path, values) = self.file.as_ref()?;
        values.get(name).map(|values| Pick { values: values.clone(), from: Source::File(path.clone()) })
    }

    /// A variable that is no setting.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name)
    }
}

/// Reads at most `max` bytes of a UTF-8 file that a user named; the fault is one sentence.
pub fn read_bounded(path: &Path, max: u64) -> Result<String, ConfigFault> {
    use std::io::Read;
    let fault = |why: String| ConfigFault(format!("cannot read {}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| fault(e.to_string()))?;
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(|e| fault(e.to_string()))?;
    if text.len() as u64 > max {
        return Err(fault(format!("it is longer than {max} bytes")));
    }
    Ok(text)
}

fn read_file(path: &Path) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigFault> {
    parse_file(&read_bounded(path, CONFIG_FILE_MAX)?, path)
}

/// Reads a TOML file's keys; `-` and `_` are the same in a key.
fn parse_file(text: &str, path: &Path) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigFault> {
    let fault = |why: String| ConfigFault(format!("{}: {why}", path.display()));
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| fault(format!("not TOML: {}", one_line(e.message()))))?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        let Some(setting) = SETTINGS.iter().find(|s| s.name == name) else {
            return Err(fault(format!("unknown key `{}`; `tops-node config` lists the keys there are", one_line(&key))));
        };
        let texts = match (setting.kind, value) {
            (Kind::List(_), toml::Value::Array(items)) => items.into_iter().map(scalar).collect::<Option<Vec<_>>>(),
            (_, value) => scalar(value).map(|text| vec![text]),
        };
        let texts = texts.ok_or_else(|| {
            fault(format!(
                "`{name}` must be a plain value{}",
                if matches!(setting.kind, Kind::List(_)) { " or a list of them" } else { "" }
            ))
        })?;
        if values.insert(setting.name, texts).is_some() {
            return Err(fault(format!("`{name}` is there twice: keep one spelling")));
        }
    }
    Ok(values)
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// At most 200 characters on one line, so that an error stays a sentence whatever it quotes.
pub fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if text.chars().nth(200).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_gives_values_lists_and_switches() {
        let values = parse_file(
            "network = \"dev\"\nbootstrap = [\"/ip4/1.2.3.4/tcp/1\"]\nverify_only = true\naudit-rate = 0.5\ntarget-ms = 200\n",
            Path::new("f"),
        )
        .unwrap();
        assert_eq!(values["network"], ["dev"]);
        assert_eq!(values["bootstrap"], ["/ip4/1.2.3.4/tcp/1"]);
        assert_eq!(values["verify-only"], ["true"]);
        assert_eq!(values["audit-rate"], ["0.5"]);
        assert_eq!(values["target-ms"], ["200"]);
    }

    #[test]
    fn unknown_doubled_and_nested_keys_are_one_sentence() {
        for (text, expected) in [
            ("netwrok = \"dev\"", "f: unknown key `netwrok`; `tops-node config` lists the keys there are"),
            ("audit-rate = 1\naudit_rate = 1", "f: `audit-rate` is there twice: keep one spelling"),
            ("network = [\"dev\"]", "f: `network` must be a plain value"),
            ("listen = [[1]]", "f: `listen` must be a plain value or a list of them"),
            ("[network]\nm = 1", "f: `network` must be a plain value"),
        ] {
            assert_eq!(parse_file(text, Path::new("f")).unwrap_err().0, expected);
        }
        assert!(parse_file("network =", Path::new("f")).unwrap_err().0.starts_with("f: not TOML: "));
    }

    #[test]
    fn variables_and_flags_of_one_name() {
        let names: std::collections::BTreeSet<_> = SETTINGS.iter().map(Setting::variable).collect();
        assert_eq!(names.len(), SETTINGS.len());
        assert!(names.contains("TOPS_AUDIT_RATE"));
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused_in_one_line(text in "\\PC{0,200}|(?s).{0,200}") {
            if let Err(ConfigFault(sentence)) = parse_file(&text, Path::new("f")) {
                prop_assert!(!sentence.contains('\n') && sentence.chars().count() < 400, "{sentence}");
            }
        }
    }
}
