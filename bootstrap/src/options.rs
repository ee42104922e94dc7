//! The command line, and what it names: a network and a key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use libp2p::Multiaddr;
use libp2p::identity::{Keypair, secp256k1};
use serde::Deserialize;
use tops_protocol::NetworkSpec;
use tops_protocol::keys::SecretKey;
use tops_protocol::network::Fields;
use zeroize::Zeroizing;

/// The largest network file.
const NETWORK_FILE_MAX: u64 = 64 * 1024;
/// The largest key file: 64 digits and white space.
const KEY_FILE_MAX: u64 = 256;

/// A small, long-lived rendezvous for the tops network.
#[derive(Debug, Clone, Parser)]
#[command(name = "tops-bootstrap", version)]
pub struct Options {
    /// Which network: main, dev, or a network file
    #[arg(long, env = "TOPS_NETWORK", default_value = "main", value_name = "main|dev|FILE")]
    pub network: String,
    /// Where to listen; several may be given
    #[arg(long, env = "TOPS_LISTEN", value_delimiter = ',', default_values = ["/ip4/0.0.0.0/tcp/4068", "/ip4/0.0.0.0/udp/4068/quic-v1", "/ip6/::/tcp/4068", "/ip6/::/udp/4068/quic-v1"], value_name = "MULTIADDR")]
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this gate
    #[arg(long, env = "TOPS_EXTERNAL_ADDRESS", value_delimiter = ',', value_name = "MULTIADDR")]
    pub external_address: Vec<Multiaddr>,
    /// The key of its identity; made when it is not there
    #[arg(long, env = "TOPS_KEY_FILE", default_value = "tops-bootstrap.key", value_name = "FILE")]
    pub key_file: PathBuf,
    /// Write the addresses with the identity here, one a line, once they are known
    #[arg(long, value_name = "FILE")]
    pub addr_file: Option<PathBuf>,
    /// Connections at most
    #[arg(long, env = "TOPS_CONNECTIONS", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(4..=65_536))]
    pub connections: u32,
    /// error, warn, info, debug or trace, or a filter
    #[arg(long, env = "TOPS_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// What a network file holds beside what only nodes care about.
#[derive(Deserialize)]
struct NetworkFile {
    #[serde(flatten)]
    fields: NetworkFields,
}

/// The numbers of spec §4.
#[derive(Deserialize)]
struct NetworkFields {
    m: u32,
    n: u32,
    k: u32,
    spacing_secs: u32,
    half_life_secs: u32,
    genesis_bits: u32,
    easiest_bits: u32,
    share_log2: u32,
    stale_window: u32,
    genesis_time_ms: u64,
}

/// The rules of the network that was named.
pub fn network(name: &str) -> anyhow::Result<NetworkSpec> {
    match name {
        "main" => return Ok(NetworkSpec::main()),
        "dev" => return Ok(NetworkSpec::dev()),
        _ => {}
    }
    let text = read_bounded(Path::new(name), NETWORK_FILE_MAX)
        .with_context(|| format!("--network {name}: it must be main, dev, or a network file"))?;
    parse(&text)
}

/// The contents of a network file.
fn parse(text: &str) -> anyhow::Result<NetworkSpec> {
    let NetworkFile { fields: f } = toml::from_str(text).map_err(|e| anyhow::anyhow!("the network file is wrong: {}", e.message()))?;
    let fields = Fields {
        m: f.m,
        n: f.n,
        k: f.k,
        spacing_secs: f.spacing_secs,
        half_life_secs: f.half_life_secs,
        genesis_bits: f.genesis_bits,
        easiest_bits: f.easiest_bits,
        share_log2: f.share_log2,
        stale_window: f.stale_window,
        genesis_time_ms: f.genesis_time_ms,
    };
    NetworkSpec::new(fields).context("the network file is wrong")
}

fn read_bounded(path: &Path, max: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max {
        bail!("{} is larger than {max} bytes", path.display());
    }
    Ok(text)
}

/// The identity in the file, or a new one that is written there for its owner alone.
pub fn identity(path: &Path) -> anyhow::Result<Keypair> {
    let key = if path.exists() { load(path)? } else { create(path)? };
    let bytes = Zeroizing::new(key.to_bytes());
    let secret = secp256k1::SecretKey::try_from_bytes(*bytes).context("the key is not one of secp256k1")?;
    Ok(secp256k1::Keypair::from(secret).into())
}

fn load(path: &Path) -> anyhow::Result<SecretKey> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            bail!("others can read {}: chmod 600 it, and think of the key as known", path.display());
        }
    }
    let text = Zeroizing::new(read_bounded(path, KEY_FILE_MAX).with_context(|| format!("the key file {} cannot be read", path.display()))?);
    let key = tops_protocol::types::parse_hex::<32>(text.trim()).ok().and_then(|bytes| SecretKey::from_bytes(&Zeroizing::new(bytes)));
    key.with_context(|| format!("{} does not hold a key of 64 hex digits", path.display()))
}

fn create(path: &Path) -> anyhow::Result<SecretKey> {
    let key = loop {
        let bytes = Zeroizing::new(secp256k1::Keypair::generate().secret().to_bytes());
        if let Some(key) = SecretKey::from_bytes(&bytes) {
            break key;
        }
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    // Written beside its name and linked there, so that a kill never leaves half a key, and a key is never replaced.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let written = write_and_link(&draft, path, &key);
    // After a failure before its creation there is nothing to remove.
    let _ = fs::remove_file(&draft);
    written.and_then(|()| File::open(dir)?.sync_all()).with_context(|| format!("the key file {} cannot be made", path.display()))?;
    Ok(key)
}

fn write_and_link(draft: &Path, path: &Path, key: &SecretKey) -> io::Result<()> {
    // A leftover of a killed process with this one's number.
    let _ = fs::remove_file(draft);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(draft)?;
    let hex: Zeroizing<String> = Zeroizing::new(key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect());
    file.write_all(hex.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::hard_link(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The numbers of `dev`, under a name.
    const DEV: &str = "name = \"mine\"\nm = 16\nn = 256\nk = 256\nspacing_secs = 4\nhalf_life_secs = 60\ngenesis_bits = 0x1f3fffff\neasiest_bits = 0x2000ffff\nshare_log2 = 4\nstale_window = 3\ngenesis_time_ms = 0\n";

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys").join("gate.key");
        let first = identity(&path).unwrap().public().to_peer_id();
        assert_eq!(identity(&path).unwrap().public().to_peer_id(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(identity(&path).unwrap_err().to_string().contains("others can read"));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(&path, "not a key").unwrap();
        assert!(identity(&path).is_err());
    }

    #[test]
    fn networks_by_name_and_by_file() {
        assert_eq!(network("main").unwrap(), NetworkSpec::main());
        assert_eq!(network("dev").unwrap(), NetworkSpec::dev());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.toml");
        fs::write(&path, DEV).unwrap();
        assert_eq!(network(path.to_str().unwrap()).unwrap(), NetworkSpec::dev());
        fs::write(&path, DEV.replace("n = 256", "n = 7")).unwrap();
        assert!(network(path.to_str().unwrap()).is_err());
        assert!(network("/nowhere").is_err());
    }

    #[test]
    fn the_lists_of_known_peers_can_be_read() {
        #[derive(Deserialize)]
        struct Known {
            peers: Vec<Multiaddr>,
        }
        for text in [include_str!("../peers/main.toml"), include_str!("../peers/dev.toml")] {
            let known: Known = toml::from_str(text).unwrap();
            assert!(known.peers.len() <= 64);
        }
    }

    /// What may stand where a number should.
    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<u32>().prop_map(|number| number.to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            (0u32..64, -1i128..=1).prop_map(|(log2, off)| ((1i128 << log2) + off).to_string()),
            "-?[0-9]{1,40}|0x[0-9a-f]{1,20}",
            "nan|-inf|1e9|16[.]0|true|\"16\"|\\[\\]|\\[16\\]|\\{\\}|\\{ m = 16 \\}|1979-05-27|",
            (1usize..70_000).prop_map(|digits| "9".repeat(digits)),
            "(?s).{0,60}".prop_map(|text| format!("{text:?}")),
            "\\PC{0,60}",
        ]
    }

    proptest! {
        #[test]
        fn a_file_with_one_line_replaced_is_a_network_or_one_sentence(at in any::<prop::sample::Index>(), bare: bool, value in hostile()) {
            let mut lines: Vec<String> = DEV.lines().map(str::to_owned).collect();
            let line = at.get_mut(&mut lines);
            *line = match line.split_once(" = ") {
                Some((name, _)) if !bare => format!("{name} = {value}"),
                _ => value,
            };
            match parse(&lines.join("\n")) {
                Ok(spec) => {
                    prop_assert!(NetworkSpec::new(*spec.fields()).is_ok_and(|again| again == spec));
                }
                Err(fault) => {
                    let sentence = format!("{fault:#}");
                    prop_assert!(!sentence.is_empty() && !sentence.chars().any(char::is_control), "{sentence:?}");
                }
            }
        }

        #[test]
        fn any_text_is_a_network_or_one_sentence(text in "(?s)[a-z_ =0-9x\\[\\]\"\n.-]{0,200}|(?s).{0,200}") {
            if let Err(fault) = parse(&text) {
                let sentence = format!("{fault:#}");
                prop_assert!(!sentence.is_empty() && !sentence.chars().any(char::is_control), "{sentence:?}");
            }
        }
    }
}
