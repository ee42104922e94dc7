//! Networks by name: the presets, and files that hold the eleven numbers of another one (spec §4).
//!
//! The numbers themselves, in a file's order with commas between them, name a network too: `16,256,256,4,60,0x1f3fffff,0x2000ffff,4,3,0`. So a
//! machine joins a testnet by one line that can be copied. A file may also pin heads and say a name; neither enters the network's id. Sizes are bounded, unknown keys are errors.

use std::path::Path;

use serde::Deserialize;
use tops_protocol::network::Fields;
use tops_protocol::{Height, NetworkSpec, Root};

use crate::settings::{self, ConfigFault, one_line};

/// The most checkpoints a network file may pin.
pub const CHECKPOINTS_MAX: usize = 1_024;
/// The largest network file.
pub const NETWORK_FILE_MAX: u64 = 64 * 1024;
/// A network as `--network` names it.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its numbers.
    pub spec: NetworkSpec,
    /// `main`, `dev`, or what its file says.
    pub name: String,
    /// Whether it is built in.
    pub preset: bool,
    /// Pinned heads.
    pub checkpoints: Vec<(Height, Root)>,
    /// Known peers.
    pub bootstrap: Vec<String>,
}

/// What a network file holds: the numbers of spec §4, and what does not enter the network's id.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    name: Option<String>,
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
    #[serde(default)]
    checkpoints: Vec<Checkpoint>,
}

/// A list of known peers, as `bootstrap/peers` keeps one a preset.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersFile {
    peers: Vec<String>,
}

fn known_peers(text: &str) -> Result<Vec<String>, ConfigFault> {
    toml::from_str::<PeersFile>(text)
        .map(|file| file.peers)
        .map_err(|e| ConfigFault(format!("the list of known peers is wrong: {}", one_line(e.message()))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    height: u64,
    root: String,
}

impl Network {
    /// A preset's name, the ten numbers that a network file holds, or a file's path.
    pub fn named(text: &str) -> Result<Self, ConfigFault> {
        let preset = |name: &str, spec, peers| {
            Ok(Self { spec, name: name.into(), preset: true, checkpoints: Vec::new(), bootstrap: known_peers(peers)? })
        };
        match text {
            "main" => preset("main", NetworkSpec::main(), include_str!("../../bootstrap/peers/main.toml")),
            "dev" => preset("dev", NetworkSpec::dev(), include_str!("../../bootstrap/peers/dev.toml")),
            numbers if numbers.contains(',') && !Path::new(numbers).exists() => Self::of_numbers(numbers),
            file => {
                let path = Path::new(file);
                if !path.exists() {
                    return Err(ConfigFault("it must be main, dev, a network file that exists, or its ten numbers with commas".into()));
                }
                Self::parse(&settings::read_bounded(path, NETWORK_FILE_MAX)?)
            }
        }
    }

    /// The numbers of a network file in its order, decimal or hexadecimal.
    fn of_numbers(text: &str) -> Result<Self, ConfigFault> {
        const KEYS: [&str; 10] = [
            "m",
            "n",
            "k",
            "spacing_secs",
            "half_life_secs",
            "genesis_bits",
            "easiest_bits",
            "share_log2",
            "stale_window",
            "genesis_time_ms",
        ];
        let numbers: Vec<&str> = text.split(',').map(str::trim).collect();
        let digits = |number: &&str| !number.is_empty() && number.len() <= 20 && number.bytes().all(|b| b.is_ascii_alphanumeric());
        if numbers.len() != KEYS.len() || !numbers.iter().all(digits) {
            return Err(ConfigFault(format!("a network without a file is {} numbers with commas: {}", KEYS.len(), KEYS.join(","))));
        }
        let lines: Vec<String> = KEYS.iter().zip(numbers).map(|(key, number)| format!("{key} = {number}")).collect();
        Self::parse(&lines.join("\n"))
    }

    /// The contents of a network file.
    pub fn parse(text: &str) -> Result<Self, ConfigFault> {
        let file: NetworkFile =
            toml::from_str(text).map_err(|e| ConfigFault(format!("the network file is wrong: {}", one_line(e.message()))))?;
        let spec = NetworkSpec::new(Fields {
            m: file.m,
            n: file.n,
            k: file.k,
            spacing_secs: file.spacing_secs,
            half_life_secs: file.half_life_secs,
            genesis_bits: file.genesis_bits,
            easiest_bits: file.easiest_bits,
            share_log2: file.share_log2,
            stale_window: file.stale_window,
            genesis_time_ms: file.genesis_time_ms,
        })
        .map_err(|e| ConfigFault(format!("the network file is wrong: {e}")))?;
        if file.checkpoints.len() > CHECKPOINTS_MAX {
            return Err(ConfigFault(format!("the network file has more than {CHECKPOINTS_MAX} checkpoints")));
        }
        let mut checkpoints = Vec::with_capacity(file.checkpoints.len());
        for Checkpoint { height, root } in file.checkpoints {
            let root = Root::from_hex(&root).map_err(|e| ConfigFault(format!("the checkpoint at height {height} is wrong: {e}")))?;
            if height == 0 || checkpoints.iter().any(|&(h, _)| h == Height(height)) {
                return Err(ConfigFault(format!("the checkpoint at height {height} is wrong: heights begin at 1 and appear once")));
            }
            checkpoints.push((Height(height), root));
        }
        checkpoints.sort_unstable();
        let name = file.name.unwrap_or_else(|| spec.tag().to_hex());
        if name.is_empty()
            || name.len() > 32
            || matches!(name.as_str(), "main" | "dev")
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(ConfigFault("the network's name must be 1 to 32 letters, digits and dashes, and not main or dev".into()));
        }
        Ok(Self { spec, name, preset: false, checkpoints, bootstrap: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::Multiaddr;
    use proptest::prelude::*;

    #[test]
    fn numbers_name_a_network_without_a_file() {
        let network = Network::named("16,256,256, 4,60,0x1f3fffff,0x2000ffff,4,3,0").unwrap();
        assert_eq!(network.spec.id(), NetworkSpec::dev().id());
        assert!(!network.preset && network.checkpoints.is_empty());
        for bad in [
            "16,256,256",
            "16,256,256,4,60,0x1f3fffff,0x2000ffff,4,3,0,0",
            "16,256,256,4,60,0x1f3fffff,0x2000ffff,4,3,\"0\"",
            "a,b,c,d,e,f,g,h,i,j",
        ] {
            assert!(Network::named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_embedded_lists_are_addresses() {
        for name in ["main", "dev"] {
            for peer in Network::named(name).unwrap().bootstrap {
                assert!(peer.parse::<Multiaddr>().is_ok(), "{peer}");
            }
        }
        assert!(known_peers("peers = 1").is_err());
    }

    /// The numbers of `dev`.
    const DEV: &str = "m = 16\nn = 256\nk = 256\nspacing_secs = 4\nhalf_life_secs = 60\ngenesis_bits = 0x1f3fffff\neasiest_bits = 0x2000ffff\nshare_log2 = 4\nstale_window = 3\ngenesis_time_ms = 0\n";

    #[test]
    fn a_network_file_gives_its_own_id() {
        let dev = DEV;
        let network = Network::parse(dev).unwrap();
        assert_eq!(network.spec, NetworkSpec::dev());
        let root = "ab".repeat(32);
        let pinned = Network::parse(&format!("{dev}name = \"mine\"\n[[checkpoints]]\nheight = 7\nroot = \"{root}\"\n")).unwrap();
        assert_eq!((pinned.name.as_str(), pinned.checkpoints.len()), ("mine", 1));
        assert_eq!(pinned.spec.id(), network.spec.id(), "a name and checkpoints are no law");
        for wrong in [
            dev.replace("n = 256", "n = 255"),
            dev.replace("genesis_bits = 0x1f3fffff", "genesis_bits = 0"),
            format!("{dev}colour = 1\n"),
            format!("{dev}name = \"main\"\n"),
            format!("{dev}[[checkpoints]]\nheight = 0\nroot = \"{root}\"\n"),
            format!("{dev}[[checkpoints]]\nheight = 1\nroot = \"AB\"\n"),
            dev.replace("m = 16", "m = -1"),
            String::new(),
        ] {
            let sentence = Network::parse(&wrong).unwrap_err().0;
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_one_sentence(text in "(?s)[a-z_ =0-9x\\[\\]\"\n.-]{0,200}") {
            if let Err(ConfigFault(sentence)) = Network::parse(&text) {
                prop_assert!(!sentence.contains('\n') && sentence.chars().count() < 400, "{sentence}");
            }
        }

        #[test]
        fn a_file_with_one_line_replaced_is_a_network_or_one_sentence(at in any::<prop::sample::Index>(), bare: bool, value in hostile()) {
            let whole = format!("name = \"mine\"\n{DEV}[[checkpoints]]\nheight = 7\nroot = \"{}\"\n", "ab".repeat(32));
            prop_assert!(Network::parse(&whole).is_ok());
            let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
            let line = at.get_mut(&mut lines);
            *line = match line.split_once(" = ") {
                Some((name, _)) if !bare => format!("{name} = {value}"),
                _ => value,
            };
            match Network::parse(&lines.join("\n")) {
                Ok(network) => {
                    prop_assert!(NetworkSpec::new(*network.spec.fields()).is_ok_and(|again| again == network.spec));
                    prop_assert!((1..=32).contains(&network.name.len()) && network.checkpoints.len() <= CHECKPOINTS_MAX);
                }
                Err(ConfigFault(sentence)) => {
                    prop_assert!(!sentence.is_empty() && !sentence.chars().any(char::is_control), "{sentence:?}");
                    prop_assert!(sentence.chars().count() < 400, "{sentence}");
                }
            }
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
            "(?s).{0,60}".prop_map(|text| serde_json::Value::from(text).to_string()),
            "\\PC{0,60}",
        ]
    }
}
