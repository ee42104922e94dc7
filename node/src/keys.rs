//! The node's secret keys: files that only their owner reads, and what is derived from a key.
//!
//! A key file holds 64 lower-case hex digits and a newline. It is written beside its final name, flushed, and linked there, so that a
//! kill never leaves half a key and an existing key is never replaced; it has mode 0600 in a directory of mode 0700, and a file that others can
//! read is refused. Secrets are wiped from memory, never logged, and never on a command line.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use libp2p::identity;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tops_protocol::keys::SecretKey;
use tops_protocol::{PublicKey, Text};
use zeroize::Zeroizing;

use crate::config::KeySource;

/// The largest key file: 64 digits and generous white space.
const KEY_FILE_MAX: u64 = 256;

/// Multicodec of a compressed secp256k1 public key, as a varint.
const SECP256K1_PUB: [u8; 2] = [0xe7, 0x01];

/// A new key from the operating system's randomness.
pub fn generate() -> anyhow::Result<SecretKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    loop {
        OsRng.try_fill_bytes(bytes.as_mut()).context("the operating system gives no randomness")?;
        // Fails with a chance of 2^-128: the bytes must be below the group's order.
        if let Some(key) = SecretKey::from_bytes(&bytes) {
            return Ok(key);
        }
    }
}

/// Reads 64 hex digits, with white space around them.
pub fn parse(text: &str) -> anyhow::Result<SecretKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    let digits = text.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    if hex::decode_to_slice(digits, bytes.as_mut()).is_err() {
        bail!("a secret key is 64 hex digits");
    }
    SecretKey::from_bytes(&bytes).context("the number is no secret key of secp256k1: make one with `tops-node key new`")
}

/// The 64 hex digits of a key.
pub fn to_text(key: &SecretKey) -> Zeroizing<String> {
    let bytes = Zeroizing::new(key.to_bytes());
    Zeroizing::new(hex::encode(bytes.as_ref()))
}

/// Writes a new key file; fails when something is there already.
pub fn create(path: &Path, key: &SecretKey) -> anyhow::Result<()> {
    let text = Zeroizing::new(format!("{}\n", to_text(key).as_str()));
    create_private(path, &text, "keep it, or name another file with --key-file")
}

/// Writes a new file that only its owner reads; `exists`: what to do when something is there already.
pub fn create_private(path: &Path, text: &str, exists: &str) -> anyhow::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_dir(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_string_lossy().into_owned();
    let draft = dir.join(format!(".{name}.{}.new", std::process::id()));
    let written = write_and_link(&draft, path, text);
    // After a failure before its creation there is nothing to remove.
    let _ = fs::remove_file(&draft);
    match written {
        Ok(()) => File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot flush {}", dir.display())),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists: {exists}", path.display())
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            bail!("cannot write {}: there is no room on its disk: free some space and start again", path.display())
        }
        Err(e) => Err(e).with_context(|| format!("cannot write {}", path.display())),
    }
}

fn write_and_link(draft: &Path, path: &Path, text: &str) -> io::Result<()> {
    // A leftover of a killed process with this one's number.
    let _ = fs::remove_file(draft);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Unlike a rename, a link never replaces what is there.
    fs::hard_link(draft, path)
}

fn private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Reads a key file; refuses one that others can read.
pub fn load(path: &Path) -> anyhow::Result<SecretKey> {
    let file = File::open(path).with_context(|| format!("cannot read the key file {}", path.display()))?;
    let about = file.metadata().with_context(|| format!("cannot read the key file {}", path.display()))?;
    if !about.is_file() {
        bail!("{} is not a file: name a key file with --key-file", path.display());
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&about) & 0o777;
        if mode & 0o077 != 0 {
            bail!("others can read the key file {} (mode {mode:03o}): run `chmod 600 {}`", path.display(), path.display());
        }
    }
    if about.len() > KEY_FILE_MAX {
        bail!("{} is too long for a key file", path.display());
    }
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_MAX as usize));
    file.take(KEY_FILE_MAX).read_to_string(&mut text).with_context(|| format!("cannot read the key file {}", path.display()))?;
    parse(&text).with_context(|| format!("the key file {} is damaged", path.display()))
}

/// The miner's key; a key file that is not there is made.
pub fn miner_key(source: &KeySource) -> anyhow::Result<SecretKey> {
    match source {
        KeySource::Given(hex) => parse(hex.expose()).context("WORKER_SK_HEX is wrong"),
        KeySource::File(path) => load_or_create(path),
    }
}

/// Reads a key file, or makes it when nothing is there.
pub fn load_or_create(path: &Path) -> anyhow::Result<SecretKey> {
    if fs::symlink_metadata(path).is_ok_and(|_| true) {
        return load(path);
    }
    let key = generate()?;
    create(path, &key)?;
    tracing::info!(path = %path.display(), miner = %key.public(), "made a new key; {}", backup(path));
    Ok(key)
}

/// How to keep a copy of a key file, as one sentence.
pub fn backup(path: &Path) -> String {
    format!(
        "back it up, for nobody can restore it and what it earns is its owner's: `tops-node key export --key-file {} BACKUP.pem` writes a copy that a passphrase seals",
        path.display()
    )
}

/// The libp2p identity of a key.
pub fn identity(key: &SecretKey) -> anyhow::Result<identity::Keypair> {
    let mut bytes = Zeroizing::new(key.to_bytes());
    let secret = identity::secp256k1::SecretKey::try_from_bytes(bytes.as_mut_slice()).context("the key is no libp2p identity")?;
    Ok(identity::secp256k1::Keypair::from(secret).into())
}

/// `did:key:z…` of a compressed secp256k1 key: base58btc of the multicodec prefix and the key.
pub fn did_key(key: &PublicKey) -> Text {
    let mut bytes = SECP256K1_PUB.to_vec();
    bytes.extend_from_slice(&key.0);
    Text::cleaned(&format!("did:key:z{}", bs58::encode(bytes).into_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_file_is_private_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/miner.key");
        let key = generate().unwrap();
        create(&path, &key).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(load(&path).unwrap().public(), key.public());
        let sentence = create(&path, &generate().unwrap()).unwrap_err().to_string();
        assert!(sentence.contains("exists"), "{sentence}");
        assert_eq!(load(&path).unwrap().public(), key.public());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        assert_eq!(load_or_create(&path).unwrap().public(), key.public());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("miner.key");
        create(&path, &generate().unwrap()).unwrap();
        for open in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            let sentence = format!("{:#}", load_or_create(&path).unwrap_err());
            assert!(sentence.contains("chmod 600"), "{sentence}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(load(&path).is_ok());
    }

    #[test]
    fn damaged_files_are_refused_and_errors_hold_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("miner.key");
        let hex = "435e01b492c93aa9259378696948c81c04059f3f271dab34569efa766a186988";
        let zeros = "0".repeat(64);
        let order = "f".repeat(64);
        for text in ["", "\n", &hex[1..], &format!("{hex}00"), &format!("{hex}\n{hex}"), &zeros, &order, &"a".repeat(300), "not hex"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let sentence = format!("{:#}", load(&path).unwrap_err());
            assert!(!sentence.contains(&hex[2..20]), "{sentence}");
        }
        assert!(load(dir.path()).is_err());
        fs::write(&path, [0xff; 64]).unwrap();
        assert!(load(&path).is_err());
    }

    #[test]
    fn the_identity_is_the_miners_key() {
        let key = parse("435e01b492c93aa9259378696948c81c04059f3f271dab34569efa766a186988").unwrap();
        let public = identity(&key).unwrap().public().try_into_secp256k1().unwrap();
        assert_eq!(public.to_bytes(), key.public().0);
        assert!(!format!("{key:?}").contains("435e"));
    }

    #[test]
    fn did_key_is_the_published_form() {
        // The compressed generator times the secret above; the prefix of every secp256k1 did:key is zQ3s.
        let did = did_key(&parse("435e01b492c93aa9259378696948c81c04059f3f271dab34569efa766a186988").unwrap().public());
        assert!(did.as_str().starts_with("did:key:zQ3s"), "{did}");
        let back = bs58::decode(&did.as_str()["did:key:z".len()..]).into_vec().unwrap();
        assert_eq!(hex::encode(back), "e70103967fc2d3f423ef8a417e1faca8ba1436a5bdb51e7c379882b254ae16069852bd");
        // W3C did:key test vector (secp256k1).
        let w3c = PublicKey::from_hex("03874c15c7fda20e539c6e5ba573c139884c351188799f5458b4b41f7924f235cd").unwrap();
        assert_eq!(did_key(&w3c).as_str(), "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme");
    }
}
