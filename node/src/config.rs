//! One validated [`Config`] from the raw settings; every fault is one sentence that says what to do.
//!
//! A value that is held here is in range: nobody checks it again. Secrets are wrapped so that no log, no error and no `config`
//! output shows them. Nothing here opens the store, a socket or a key file; the network file is the only one that is read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tops_compute::backend::DeviceKind;
use tops_protocol::engine::{AuditRate, Bridge, BridgeScope, RETAIN_EPOCHS_DEFAULT, RETAIN_EPOCHS_MAX, RETAIN_EPOCHS_MIN, Shard};
use tops_protocol::{Height, NetworkSpec, Root, Text};
use url::Url;
use zeroize::Zeroizing;

use crate::devices;
use crate::net::book::reach;
use crate::networks::Network;
use crate::settings::{ConfigFault, KEY_VARIABLE, Layers, Pick, SETTINGS, Source, VERIFY_VARIABLE, one_line};

/// Port of the peer-to-peer listeners unless the operator says otherwise.
pub const P2P_PORT: u16 = 4069;
/// Port of the HTTP interface unless the operator says otherwise.
pub const HTTP_PORT: u16 = 4067;
/// The most addresses of one kind: bootstrap, listen, external.
pub const ADDRESSES_MAX: usize = 64;
/// The shortest API token.
pub const TOKEN_MIN: usize = 16;
/// The longest API token.
pub const TOKEN_MAX: usize = 256;
/// The deepest `--bridge-depth`: a receipt must go before retention drops it.
pub const BRIDGE_DEPTH_MAX: u64 = RETAIN_EPOCHS_MIN / 2;
/// The most devices `--devices` may name.
pub const DEVICES_MAX: usize = 64;

/// Text that is never shown and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps it.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where the miner's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file; made when the node starts and it is not there.
    File(PathBuf),
    /// The key itself, 64 hex digits.
    Given(Secret),
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// The best that is found.
    Auto,
    /// Devices of one kind only.
    Only(DeviceKind),
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How and what a node logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// The form.
    pub form: LogForm,
    /// A level or a filter, as the operator wrote it; known to parse.
    pub level: String,
}

/// Everything that an operator decides about a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The law's numbers.
    pub network: NetworkSpec,
    /// `main`, `dev`, or the name in the network file.
    pub network_name: String,
    /// Heads that the network file pins.
    pub checkpoints: Vec<(Height, Root)>,
    /// Peers to join by.
    pub bootstrap: Vec<Multiaddr>,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this node.
    pub external_addresses: Vec<Multiaddr>,
    /// Mine without having heard from a peer: said by the operator, or nobody to hear from on a network that is not `main`.
    pub alone: bool,
    /// Look for peers on the local network too.
    pub mdns: bool,
    /// Whether to use relays.
    pub relay: bool,
    /// Where the store lives.
    pub data_dir: PathBuf,
    /// The miner's key.
    pub key: KeySource,
    /// Another key for the peer identity.
    pub identity_file: Option<PathBuf>,
    /// The device's name in receipts; `None`: a did:key of the miner's key.
    pub device_did: Option<Text>,
    /// A light node: no mining, audits on the CPU.
    pub verify_only: bool,
    /// What computes.
    pub backend: BackendChoice,
    /// Which devices of it, ascending; `None`: all.
    pub devices: Option<Vec<u32>>,
    /// How long one launch should take.
    pub target: Duration,
    /// The least part of shares that is audited.
    pub audit_rate: AuditRate,
    /// Which units are audited beyond that part.
    pub audit_shard: Shard,
    /// Where audited receipts are posted.
    pub aggregator: Option<Url>,
    /// Which of them; `None` without an aggregator.
    pub bridge: Option<Bridge>,
    /// Where the HTTP interface listens; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// What HTTP clients must show.
    pub api_token: Option<Secret>,
    /// The signer of v1 receipts that are posted to `/verify`, 33 or 65 bytes.
    pub verify_key: Option<Vec<u8>>,
    /// How many epochs below the tip are kept.
    pub retain_epochs: u64,
    /// Logs.
    pub logging: Logging,
    /// What `config` prints.
    pub shown: Vec<Shown>,
}

/// One line of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The setting.
    pub name: &'static str,
    /// Its value or values as text; none when there is none. Secrets are masked.
    pub values: Vec<String>,
    /// Where it came from.
    pub from: Source,
}

/// What stands for a secret in any output.
pub const MASK: &str = "(hidden)";

/// Asks the layers one setting after the other and keeps what was decided.
struct Reader<'a> {
    layers: &'a Layers,
    shown: Vec<Shown>,
}

impl Reader<'_> {
    fn note(&mut self, name: &'static str, values: Vec<String>, from: Source) {
        let secret = SETTINGS.iter().any(|s| s.name == name && s.secret);
        let values = if secret { values.iter().map(|_| MASK.to_owned()).collect() } else { values };
        self.shown.push(Shown { name, values, from });
    }

    /// One value, or its default (`""`: none).
    fn value<T>(&mut self, name: &'static str, default: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, ConfigFault> {
        let pick = self
            .layers
            .pick(name)
            .or_else(|| (!default.is_empty()).then(|| Pick { values: vec![default.to_owned()], from: Source::Default }));
        let Some(Pick { values, from }) = pick else {
            self.note(name, Vec::new(), Source::Default);
            return Ok(None);
        };
        let text = values.last().map_or("", String::as_str).trim();
        let value = parse(text).map_err(|why| fault(name, text, &from, &why))?;
        self.note(name, vec![text.to_owned()], from);
        Ok(Some(value))
    }

    /// One value that has a default.
    fn required<T>(&mut self, name: &'static str, default: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigFault> {
        match self.value(name, default, parse)? {
            Some(value) => Ok(value),
            None => Err(ConfigFault(format!("`{name}` is not set"))),
        }
    }

    fn addresses(&mut self, name: &'static str, default: &[String]) -> Result<Vec<Multiaddr>, ConfigFault> {
        let Pick { values, from } = self.layers.pick(name).unwrap_or_else(|| Pick { values: default.to_vec(), from: Source::Default });
        if values.len() > ADDRESSES_MAX {
            return Err(ConfigFault(format!("`{name}` has {} addresses ({from}): give at most {ADDRESSES_MAX}", values.len())));
        }
        let parse = |text: &String| {
            text.trim()
                .parse()
                .map_err(|_| fault(name, text, &from, "it must be a multiaddress such as /ip4/203.0.113.7/tcp/4069/p2p/16Uiu2HA…"))
        };
        let addresses: Vec<Multiaddr> = values.iter().map(parse).collect::<Result<_, _>>()?;
        for (address, text) in addresses.iter().zip(&values) {
            // A dnsaddr names whole addresses.
            let port = address.iter().any(|part| matches!(part, Protocol::Tcp(_) | Protocol::Udp(_) | Protocol::Dnsaddr(_)));
            if !port || (name == "bootstrap" && reach(address).is_none()) {
                return Err(fault(
                    name,
                    text,
                    &from,
                    "it must name a host, a transport and a port, such as /ip4/203.0.113.7/tcp/4069/p2p/16Uiu2HA…",
                ));
            }
        }
        self.note(name, values, from);
        Ok(addresses)
    }
}

fn fault(name: &str, text: &str, from: &Source, why: &str) -> ConfigFault {
    let secret = SETTINGS.iter().any(|s| s.name == name && s.secret);
    let text = if secret { MASK.to_owned() } else { one_line(text) };
    ConfigFault(format!("`{name}` is \"{text}\" ({from}): {why}"))
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("say true or false".into()),
    }
}

fn number(low: u64, high: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| text.parse().ok().filter(|n| (low..=high).contains(n)).ok_or_else(|| format!("it must be a whole number in {low}..={high}"))
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("it must name a file or directory".into()) } else { Ok(PathBuf::from(text)) }
}

/// A part of the whole, in parts per million.
fn rate(text: &str) -> Result<AuditRate, String> {
    let fault = || "it must be above 0 and at most 1, such as 0.1".to_owned();
    let rate: f64 = text.parse().map_err(|_| fault())?;
    if !(rate > 0.0 && rate <= 1.0) {
        return Err(fault());
    }
    // In 1..=1,000,000 by the check above and the lower bound.
    AuditRate::from_ppm(((rate * 1e6).round() as u32).max(1)).ok_or_else(fault)
}

/// `d:r`.
pub fn shard(text: &str) -> Result<Shard, String> {
    let parse = || {
        let (divisor, remainder) = text.split_once(':')?;
        Shard::new(divisor.parse().ok()?, remainder.parse().ok()?)
    };
    parse().ok_or_else(|| "it must be D:R with R below D, such as 4:0".into())
}

/// `auto`, `cpu`, …
pub fn backend(text: &str) -> Result<BackendChoice, String> {
    if text == "auto" {
        return Ok(BackendChoice::Auto);
    }
    let kind = devices::kinds().into_iter().find(|kind| kind.to_string() == text);
    kind.map(BackendChoice::Only).ok_or_else(|| {
        let words: Vec<_> = devices::kinds().iter().map(ToString::to_string).collect();
        format!("this build has auto, {}", words.join(", "))
    })
}

/// `0,1`: ascending, each once.
pub fn device_list(text: &str) -> Result<Vec<u32>, String> {
    let fault = || "it must be device numbers separated by commas, each once, such as 0,1".to_owned();
    let mut numbers: Vec<u32> = text.split(',').map(|part| part.trim().parse().map_err(|_| fault())).collect::<Result<_, _>>()?;
    let given = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() == given && given <= DEVICES_MAX { Ok(numbers) } else { Err(fault()) }
}

fn did(text: &str) -> Result<Text, String> {
    Text::new(text).ok_or_else(|| "it must have 1 to 128 printable ASCII characters without quote and backslash".into())
}

fn http_url(text: &str) -> Result<Url, String> {
    let fault = || "it must be an http:// or https:// address".to_owned();
    let url = Url::parse(text).map_err(|_| fault())?;
    if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() { Ok(url) } else { Err(fault()) }
}

/// A socket address, a port on loopback, `localhost:port`, or `off`.
fn listen_http(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse()
        .ok()
        .or_else(|| text.trim_start_matches(':').parse().ok().map(local))
        .map(Some)
        .ok_or_else(|| "it must be ADDRESS:PORT or off".into())
}

fn token(text: &str) -> Result<Secret, String> {
    let fits = (TOKEN_MIN..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(Secret::new(text.to_owned()))
    } else {
        Err(format!("it must have {TOKEN_MIN} to {TOKEN_MAX} visible ASCII characters, such as `openssl rand -hex 16` prints"))
    }
}

/// The signer of v1 receipts, from the original verifier's variable.
pub fn verify_key(layers: &Layers) -> Result<Option<Vec<u8>>, ConfigFault> {
    let Some(text) = layers.variable(VERIFY_VARIABLE) else { return Ok(None) };
    public_key(text).map(Some).map_err(|why| ConfigFault(format!("{VERIFY_VARIABLE} is wrong: {why}")))
}

/// A signer's key as users write it.
pub fn public_key(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.trim();
    hex::decode(digits.strip_prefix("0x").unwrap_or(digits))
        .ok()
        .filter(|key| k256::ecdsa::VerifyingKey::from_sec1_bytes(key).is_ok())
        .ok_or_else(|| "a public key is a point of secp256k1, 33 or 65 bytes as hex".into())
}

fn log_level(text: &str) -> Result<String, String> {
    crate::telemetry::filter(text).map(|_| text.to_owned())
}

/// The backend and devices alone, for commands that need no node.
pub fn compute_choice(layers: &Layers) -> Result<(BackendChoice, Option<Vec<u32>>), ConfigFault> {
    let mut reader = Reader { layers, shown: Vec::new() };
    Ok((reader.required("backend", "auto", backend)?, reader.value("devices", "", device_list)?))
}

/// The network alone.
pub fn network_choice(layers: &Layers) -> Result<Network, ConfigFault> {
    Reader { layers, shown: Vec::new() }.required("network", "main", |text| Network::named(text).map_err(|f| f.0))
}

/// The launch time alone.
pub fn target_choice(layers: &Layers) -> Result<Duration, ConfigFault> {
    Reader { layers, shown: Vec::new() }.required("target-ms", "300", number(1, 60_000)).map(Duration::from_millis)
}

/// Where a running node's HTTP interface is, and its token.
pub fn http_choice(layers: &Layers) -> Result<(Option<SocketAddr>, Option<Secret>), ConfigFault> {
    let mut reader = Reader { layers, shown: Vec::new() };
    Ok((reader.required("http", &format!("127.0.0.1:{HTTP_PORT}"), listen_http)?, reader.value("api-token", "", token)?))
}

/// Where the original solo worker posted its receipts.
pub const SOLO_AGGREGATOR: &str = "http://localhost:8081/verify";

/// What the solo worker needs beside a key and a device.
#[derive(Debug, Clone)]
pub struct SoloChoice {
    /// Where receipts go.
    pub aggregator: Url,
    /// The device's name; `None`: a did:key of the key.
    pub device_did: Option<Text>,
    /// How long an attempt should take.
    pub target: Duration,
}

/// Settings of the solo worker.
pub fn solo_choice(layers: &Layers) -> Result<SoloChoice, ConfigFault> {
    let mut reader = Reader { layers, shown: Vec::new() };
    Ok(SoloChoice {
        aggregator: reader.required("aggregator-url", SOLO_AGGREGATOR, http_url)?,
        device_did: reader.value("device-did", "", did)?,
        target: target_choice(layers)?,
    })
}

/// Log settings alone.
pub fn logging_choice(layers: &Layers) -> Result<Logging, ConfigFault> {
    logging(&mut Reader { layers, shown: Vec::new() })
}

fn logging(reader: &mut Reader<'_>) -> Result<Logging, ConfigFault> {
    let form = reader.required("log", "text", |text| match text {
        "text" => Ok(LogForm::Text),
        "json" => Ok(LogForm::Json),
        _ => Err("say text or json".into()),
    })?;
    Ok(Logging { form, level: reader.required("log-level", "info", log_level)? })
}

/// Key settings, and where the data directory is.
#[derive(Debug, Clone)]
pub struct KeyChoice {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The miner's key.
    pub key: KeySource,
    /// The identity's key file.
    pub identity_file: Option<PathBuf>,
}

/// Where keys are, for the commands that work on them.
pub fn key_choice(layers: &Layers) -> Result<KeyChoice, ConfigFault> {
    let network = network_choice(layers)?;
    keys(&mut Reader { layers, shown: Vec::new() }, &network)
}

fn keys(reader: &mut Reader<'_>, network: &Network) -> Result<KeyChoice, ConfigFault> {
    let default = default_data_dir(network).map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
    let data_dir = reader
        .value("data-dir", &default, path)?
        .ok_or_else(|| ConfigFault("there is no home directory: say where to keep data with --data-dir".into()))?;
    let file = reader.required("key-file", &data_dir.join("keys").join("miner.key").to_string_lossy(), path)?;
    let key = match reader.layers.variable(KEY_VARIABLE) {
        Some(_) if reader.layers.pick("key-file").is_some_and(|p| p.from == Source::CommandLine) => KeySource::File(file),
        Some(hex) => KeySource::Given(Secret::new(hex.trim().to_owned())),
        None => KeySource::File(file),
    };
    if let (KeySource::Given(_), Some(shown)) = (&key, reader.shown.last_mut()) {
        *shown = Shown { name: "key-file", values: vec![MASK.to_owned()], from: Source::Variable(KEY_VARIABLE.into()) };
    }
    Ok(KeyChoice { data_dir, key, identity_file: reader.value("identity-file", "", path)? })
}

fn default_data_dir(network: &Network) -> Option<PathBuf> {
    let name = if network.preset { network.name.clone() } else { network.spec.tag().to_hex() };
    directories::BaseDirs::new().map(|dirs| dirs.data_dir().join("tops").join(name))
}

impl Config {
    /// Reads and checks every setting.
    pub fn new(layers: &Layers) -> Result<Self, ConfigFault> {
        let mut reader = Reader { layers, shown: Vec::new() };
        let r = &mut reader;
        let network = r.required("network", "main", |text| Network::named(text).map_err(|f| f.0))?;
        let bootstrap = r.addresses("bootstrap", &network.bootstrap)?;
        let listen = r.addresses("listen", &default_listen())?;
        let external_addresses = r.addresses("external-address", &[])?;
        let alone = r.required("alone", "false", switch)?;
        let mdns = r.required("mdns", "false", switch)?;
        let relay = r.required("relay", "false", switch)?;
        let KeyChoice { data_dir, key, identity_file } = keys(r, &network)?;
        let device_did = r.value("device-did", "", did)?;
        let verify_only = r.required("verify-only", "false", switch)?;
        let backend = r.required("backend", if verify_only { "cpu" } else { "auto" }, self::backend)?;
        let devices = r.value("devices", "", device_list)?;
        let target = Duration::from_millis(r.required("target-ms", "300", number(1, 60_000))?);
        let audit_rate = r.required("audit-rate", "0.1", rate)?;
        let audit_shard = r.required("audit-shard", "1:0", shard)?;
        let aggregator = r.value("aggregator-url", "", http_url)?;
        let scope = r.required("bridge", "all", |text| match text {
            "all" => Ok(BridgeScope::All),
            "own" => Ok(BridgeScope::Own),
            _ => Err("say all or own".into()),
        })?;
        let shard = r.required("bridge-shard", "1:0", shard)?;
        let depth = r.required("bridge-depth", "2", number(0, BRIDGE_DEPTH_MAX))?;
        let http = r.required("http", &format!("127.0.0.1:{HTTP_PORT}"), listen_http)?;
        let api_token = r.value("api-token", "", token)?;
        let retain_epochs =
            r.required("retain-epochs", &RETAIN_EPOCHS_DEFAULT.to_string(), number(RETAIN_EPOCHS_MIN, RETAIN_EPOCHS_MAX))?;
        let logging = logging(r)?;
        if let (Some(address), None) = (http, &api_token)
            && !address.ip().is_loopback()
        {
            return Err(ConfigFault(format!(
                "the HTTP interface on {address} could be reached from other machines: set --api-token, or listen on 127.0.0.1"
            )));
        }
        if verify_only && !matches!(backend, BackendChoice::Auto | BackendChoice::Only(DeviceKind::Cpu)) {
            return Err(ConfigFault("a light node audits on the CPU: leave out --backend or --verify-only".into()));
        }
        if let Some(url) = &aggregator {
            mask_url(&mut reader.shown, url);
        }
        let lonely = bootstrap.is_empty() && network.name != "main";
        Ok(Self {
            alone: alone || lonely,
            mdns,
            relay,
            bridge: aggregator.is_some().then_some(Bridge { scope, shard, depth }),
            network: network.spec,
            network_name: network.name,
            checkpoints: network.checkpoints,
            backend: if verify_only { BackendChoice::Only(DeviceKind::Cpu) } else { backend },
            bootstrap,
            listen,
            external_addresses,
            data_dir,
            key,
            identity_file,
            device_did,
            verify_only,
            devices,
            target,
            audit_rate,
            audit_shard,
            aggregator,
            http,
            api_token,
            verify_key: verify_key(layers)?,
            retain_epochs,
            logging,
            shown: reader.shown,
        })
    }

    /// Whether this node would wait for a peer without having anybody to call.
    pub fn waits_for_a_caller(&self) -> bool {
        self.bootstrap.is_empty() && !self.alone && !self.mdns
    }
}

/// Credentials in the aggregator's address are not shown.
fn mask_url(shown: &mut [Shown], url: &Url) {
    if url.password().is_none() && url.username().is_empty() && url.query().is_none() {
        return;
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let plain = format!("{}://{MASK}@{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
    for line in shown.iter_mut().filter(|line| line.name == "aggregator-url") {
        line.values = vec![plain.clone()];
    }
}

fn default_listen() -> Vec<String> {
    ["/ip4/0.0.0.0", "/ip6/::"].iter().flat_map(|ip| [format!("{ip}/tcp/{P2P_PORT}"), format!("{ip}/udp/{P2P_PORT}/quic-v1")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::settings::{self, CONFIG_FILE_MAX, Environment};
    use proptest::prelude::*;

    fn layers(args: &[&str], env: &[(&str, &str)]) -> Result<Layers, ConfigFault> {
        let args: Vec<_> = ["tops-node", "config"].iter().chain(args).copied().collect();
        let matches = cli::command().try_get_matches_from(args).unwrap();
        let environment: Environment = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Layers::new(&cli::levels(&matches), environment)
    }

    fn config(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigFault> {
        Config::new(&layers(args, env)?)
    }

    fn shown<'a>(config: &'a Config, name: &str) -> &'a Shown {
        config.shown.iter().find(|s| s.name == name).unwrap()
    }

    #[test]
    fn the_strongest_source_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tops.toml");
        std::fs::write(&file, "target-ms = 100\naudit-rate = 0.2\nnetwork = \"dev\"\nbridge-depth = 5\n").unwrap();
        let file = file.to_str().unwrap();
        let env = [("TOPS_TARGET_MS", "200"), ("TOPS_AUDIT_RATE", "0.3"), ("AUTOTUNE_TARGET_MS", "250")];
        let config = config(&["--config", file, "--target-ms", "400"], &env).unwrap();
        assert_eq!(config.target, Duration::from_millis(400));
        assert_eq!(shown(&config, "target-ms").from, Source::CommandLine);
        assert_eq!(config.audit_rate.ppm(), 300_000);
        assert_eq!(shown(&config, "audit-rate").from, Source::Variable("TOPS_AUDIT_RATE".into()));
        assert_eq!(config.network, NetworkSpec::dev());
        assert_eq!(shown(&config, "network").from, Source::File(file.into()));
        assert_eq!(shown(&config, "retain-epochs").from, Source::Default);
        assert_eq!(config.retain_epochs, RETAIN_EPOCHS_DEFAULT);
        assert_eq!(
            config.shown.iter().map(|s| s.name).collect::<Vec<_>>(),
            settings::all(),
            "every setting is read once, in the order of the table"
        );
    }

    #[test]
    fn the_original_names_work_and_give_way_to_the_new_ones() {
        let env = [("DEVICE_DID", "did:peaq:1"), ("AGGREGATOR_URL", "http://localhost:8081/verify"), ("AUTOTUNE_TARGET_MS", "250")];
        let config = self::config(&["--network", "dev"], &env).unwrap();
        assert_eq!(config.device_did.unwrap().as_str(), "did:peaq:1");
        assert_eq!(config.aggregator.unwrap().as_str(), "http://localhost:8081/verify");
        assert_eq!(config.target, Duration::from_millis(250));
        assert_eq!(config.bridge, Some(Bridge { scope: BridgeScope::All, shard: Shard::ALL, depth: 2 }));
        let env = [("AUTOTUNE_TARGET_MS", "250"), ("TOPS_TARGET_MS", "1")];
        assert_eq!(self::config(&[], &env).unwrap().target, Duration::from_millis(1));
    }

    #[test]
    fn lists_come_from_all_three() {
        let peer = "/ip4/10.0.0.1/tcp/4069";
        assert_eq!(config(&["--bootstrap", peer, "--bootstrap", "/ip4/10.0.0.2/tcp/1"], &[]).unwrap().bootstrap.len(), 2);
        assert_eq!(config(&[], &[("TOPS_BOOTSTRAP", "/ip4/10.0.0.1/tcp/4069, /ip4/10.0.0.2/tcp/1")]).unwrap().bootstrap.len(), 2);
        assert_eq!(config(&[], &[]).unwrap().listen.len(), 4);
    }

    #[test]
    fn alone_on_other_networks_but_not_on_main() {
        let alone = |args: &[&str]| config(args, &[]).unwrap().alone;
        assert!(!alone(&[]));
        assert!(config(&[], &[]).unwrap().waits_for_a_caller());
        assert!(alone(&["--alone"]));
        assert!(alone(&["--network", "dev"]));
        assert!(!alone(&["--network", "dev", "--bootstrap", "/ip4/10.0.0.1/tcp/1"]));
    }

    #[test]
    fn secrets_are_not_shown() {
        let hex = "435e01b492c93aa9259378696948c81c04059f3f271dab34569efa766a186988";
        let config = config(
            &["--api-token", "0123456789abcdef", "--aggregator-url", "https://me:pass@example.org/x?key=hidden-key"],
            &[(KEY_VARIABLE, hex)],
        )
        .unwrap();
        let all = format!("{config:?}{:?}", config.shown);
        assert!(!all.contains("0123456789abcdef"), "{all}");
        assert!(!all.contains(hex));
        let printed = format!("{:?}", config.shown);
        assert!(!printed.contains("pass") && !printed.contains("hidden-key"), "{printed}");
        assert_eq!(config.key, KeySource::Given(Secret::new(hex.into())));
    }

    #[test]
    fn wrong_values_are_one_sentence_that_says_what_to_do() {
        for (args, expected) in [
            (["--audit-rate", "2"], "`audit-rate` is \"2\" (command line): it must be above 0 and at most 1, such as 0.1"),
            (["--audit-rate", "NaN"], "`audit-rate` is \"NaN\" (command line): it must be above 0 and at most 1, such as 0.1"),
            (["--audit-shard", "2:2"], "`audit-shard` is \"2:2\" (command line): it must be D:R with R below D, such as 4:0"),
            (
                ["--devices", "0,0"],
                "`devices` is \"0,0\" (command line): it must be device numbers separated by commas, each once, such as 0,1",
            ),
            (
                ["--http", "0.0.0.0:4067"],
                "the HTTP interface on 0.0.0.0:4067 could be reached from other machines: set --api-token, or listen on 127.0.0.1",
            ),
            (
                ["--api-token", "short"],
                "`api-token` is \"(hidden)\" (command line): it must have 16 to 256 visible ASCII characters, such as `openssl rand -hex 16` prints",
            ),
            (
                ["--network", "/nowhere"],
                "`network` is \"/nowhere\" (command line): it must be main, dev, a network file that exists, or its ten numbers with commas",
            ),
            (["--retain-epochs", "1"], "`retain-epochs` is \"1\" (command line): it must be a whole number in 64..=4096"),
            (["--bridge", "some"], "`bridge` is \"some\" (command line): say all or own"),
            (["--aggregator-url", "ftp://x"], "`aggregator-url` is \"ftp://x\" (command line): it must be an http:// or https:// address"),
            (["--target-ms", "-1"], "`target-ms` is \"-1\" (command line): it must be a whole number in 1..=60000"),
        ] {
            assert_eq!(config(&args, &[]).unwrap_err().0, expected);
        }
        let from_env = config(&[], &[("TOPS_BOOTSTRAP", "nonsense")]).unwrap_err().0;
        assert!(from_env.starts_with("`bootstrap` is \"nonsense\" (variable TOPS_BOOTSTRAP): it must be a multiaddress"), "{from_env}");
    }

    #[test]
    fn a_damaged_or_endless_config_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("long.toml");
        std::fs::write(&file, "#".repeat(CONFIG_FILE_MAX as usize + 1)).unwrap();
        let sentence = config(&["--config", file.to_str().unwrap()], &[]).unwrap_err().0;
        assert!(sentence.ends_with("it is longer than 65536 bytes"), "{sentence}");
        assert!(config(&["--config", "/nowhere.toml"], &[]).unwrap_err().0.starts_with("cannot read /nowhere.toml: "));
    }

    /// As TOML spells a string: as JSON does.
    fn quoted(text: &str) -> String {
        serde_json::Value::from(text).to_string()
    }

    /// Texts that nearly fit some setting, or do.
    const NEAR: &[&str] = &[
        "",
        " ",
        "true",
        "on",
        "main",
        "dev",
        "/",
        "/dev/null",
        "\0",
        "1:0",
        "0:0",
        "4294967296:1",
        "18446744073709551615:0",
        "-1",
        "1e400",
        "NaN",
        "0x10",
        "off",
        ":0",
        ":65536",
        "0.0.0.0:4067",
        "[::]:1",
        "localhost:localhost:1",
        "http://",
        "http://[::1",
        "https://u:p@h/?q",
        "cpu",
        "auto",
        "0,0",
        "0,",
        "99999999999",
        "own",
        "json",
        "info,libp2p=debug",
        "a=b=c,[{}]=",
        "/ip4/0.0.0.0/tcp/0",
        "/dns4//tcp/1",
        "/ip4/1.2.3.4/tcp/1/p2p/Qm",
        "0123456789abcdef",
    ];

    /// What may stand behind `=`: values of every type, out of every range, nested, endless, and what is no TOML at all.
    fn right_hand_side() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => prop::sample::select(NEAR).prop_map(quoted),
            1 => "(?s).{0,80}".prop_map(|text| quoted(&text)),
            1 => (0usize..70_000, "[0-9a-z/:,é]").prop_map(|(times, what)| quoted(&what.repeat(times))),
            1 => any::<i64>().prop_map(|number| number.to_string()),
            1 => "[-+]?[0-9_]{1,40}([.][0-9]{1,20})?(e[-+]?[0-9]{1,5})?",
            1 => "true|false|nan|-inf|0xffffffffffffffff|0b2|1979-05-27T07:32:00Z|07:32:00|\\[\\]|\\{\\}|\\{ a = 1 \\}|",
            1 => (0usize..2_000, any::<bool>()).prop_map(|(deep, lists)| {
                let (open, close) = if lists { ("[", "]") } else { ("{a=", "}") };
                format!("{}1{}", open.repeat(deep), close.repeat(deep))
            }),
            1 => prop::collection::vec("[a-z0-9/.]{0,12}".prop_map(|text| quoted(&text)), 0..100)
                .prop_map(|all| format!("[{}]", all.join(","))),
            1 => "\\PC{0,60}",
        ]
    }

    proptest! {
        #[test]
        fn any_value_of_any_setting_makes_a_config_or_one_sentence(
            lines in prop::collection::vec((prop::sample::select(settings::all()), right_hand_side()), 1..4),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("tops.toml");
            let text: String = lines.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
            std::fs::write(&file, text).unwrap();
            match config(&["--config", file.to_str().unwrap()], &[]) {
                Ok(config) => {
                    prop_assert_eq!(config.shown.len(), SETTINGS.len());
                }
                Err(ConfigFault(sentence)) => {
                    prop_assert!(!sentence.is_empty() && !sentence.chars().any(char::is_control), "{sentence:?}");
                    prop_assert!(sentence.chars().count() < 1_000, "{sentence}");
                }
            }
        }
    }
}
