//! Peers of earlier runs: a text file in the data directory, an address a line, newest first. A node that was once in the network finds it
//! again when its bootstrap addresses are gone.
//!
//! Only addresses that this node itself reached are written: what others merely say of a peer cannot fill the file. It is a help and never
//! needed: one that cannot be read or written is said and does not stop the node.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use libp2p::{Multiaddr, PeerId};
use tracing::warn;

use super::book::{peer_of, reach};
use super::limits::REMEMBERED_MAX;

/// The file's name in the data directory.
pub const FILE: &str = "peers.txt";

/// The file and what it holds.
#[derive(Debug)]
pub struct Remembered {
    path: Option<PathBuf>,
    addresses: Vec<Multiaddr>,
    failed: bool,
}

impl Remembered {
    /// Reads the file; lines that are no address of a named peer are passed over. Without a path nothing is kept.
    pub fn open(path: Option<PathBuf>) -> Self {
        let text = match path.as_deref().map(read) {
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                warn!(%error, file = FILE, "the peers of earlier runs cannot be read: only the given addresses are called");
                String::new()
            }
            None => String::new(),
        };
        let usable = |line: &str| line.trim().parse().ok().filter(|a: &Multiaddr| peer_of(a).is_some() && reach(a).is_some());
        let addresses = text.lines().filter_map(usable).take(REMEMBERED_MAX).collect();
        Self { path, addresses, failed: false }
    }

    /// The peers, each with its address.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, Multiaddr)> + '_ {
        self.addresses.iter().filter_map(|address| Some((peer_of(address)?, address.clone())))
    }

    /// Puts the addresses that are reached now before the earlier ones, an address a peer, and writes the file if it changes.
    pub fn keep(&mut self, reached: impl IntoIterator<Item = Multiaddr>) {
        let Some(path) = &self.path else { return };
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in reached.into_iter().chain(self.addresses.iter().cloned()) {
            if addresses.len() < REMEMBERED_MAX && !addresses.iter().any(|kept| peer_of(kept) == peer_of(&address)) {
                addresses.push(address);
            }
        }
        let order = |addresses: &[Multiaddr]| {
            let mut sorted: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            sorted.sort_unstable();
            sorted
        };
        if order(&addresses) == order(&self.addresses) {
            return;
        }
        match write(path, &addresses) {
            Ok(()) => self.addresses = addresses,
            Err(error) if !self.failed => {
                self.failed = true;
                warn!(%error, path = %path.display(), "the peers cannot be remembered");
            }
            Err(_) => {}
        }
    }
}

/// A missing file is an empty one; of a huge one only the beginning is read.
fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(64 * 1024).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whole or not at all.
fn write(path: &Path, addresses: &[Multiaddr]) -> std::io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = fs::File::create(&unfinished)?;
    for address in addresses {
        writeln!(file, "{address}")?;
    }
    file.sync_all()?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", PeerId::random()).parse().unwrap()
    }

    fn again(path: &Path) -> Vec<Multiaddr> {
        Remembered::open(Some(path.to_owned())).peers().map(|(_, address)| address).collect()
    }

    #[test]
    fn what_was_reached_comes_first_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut remembered = Remembered::open(Some(path.clone()));
        let old: Vec<_> = (1..=REMEMBERED_MAX as u16).map(address).collect();
        remembered.keep(old.clone());
        assert_eq!(again(&path), old);
        let fresh = address(9_999);
        remembered.keep([fresh.clone()]);
        let kept = again(&path);
        assert_eq!(kept.len(), REMEMBERED_MAX);
        assert_eq!(kept[0], fresh);
        assert_eq!(kept[1..], old[..REMEMBERED_MAX - 1]);
    }

    #[test]
    fn nonsense_in_the_file_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let good = address(7);
        let unnamed = "/ip4/127.0.0.1/tcp/7";
        fs::write(&path, format!("nonsense\n{unnamed}\n\n{good}\n\u{0}\n/ip4/0.0.0.0/tcp/1/p2p/{}\n", PeerId::random())).unwrap();
        assert_eq!(again(&path), [good]);
        fs::write(&path, vec![0xff; 1 << 20]).unwrap();
        assert!(again(&path).is_empty());
    }

    /// A line of the file: a usable address, the beginning of one, or anything.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let good: Vec<Vec<u8>> = (1..=200).map(|port| address(port).to_string().into_bytes()).collect();
        let whole = prop::sample::select(good);
        let cut = (whole.clone(), any::<prop::sample::Index>()).prop_map(|(line, at)| line[..at.index(line.len())].to_vec());
        let garbage = proptest::collection::vec(any::<u8>(), 0..80);
        prop_oneof![3 => whole, 1 => cut, 1 => garbage, 1 => "\\PC{0,80}".prop_map(String::into_bytes)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_file_gives_few_addresses_of_named_peers(
            lines in proptest::collection::vec(line(), 0..200), garbage in proptest::collection::vec(any::<u8>(), 0..2_000),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE);
            for bytes in [lines.join(&b'\n'), garbage] {
                fs::write(&path, bytes).unwrap();
                let found = again(&path);
                prop_assert!(found.len() <= REMEMBERED_MAX, "{}", found.len());
                prop_assert!(found.iter().all(|address| peer_of(address).is_some() && reach(address).is_some()));
            }
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::open(Some(dir.path().join("missing").join(FILE)));
        remembered.keep([address(1)]);
        assert_eq!(remembered.peers().count(), 0);
    }
}
