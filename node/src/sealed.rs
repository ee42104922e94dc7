//! A secret key as text that leaves the machine: sealed by a passphrase, and what else is taken back in.
//!
//! Sealed is PKCS#8 in PEM, encrypted by PBES2 with scrypt and AES-256-CBC: `openssl pkey -in FILE -text -noout` opens it without this
//! program. Taken in are that, the same without a passphrase, SEC1 (`EC PRIVATE KEY`), and the 64 hex digits of a key file. A file may
//! ask for any amount of work before its passphrase is known to be wrong, so what it asks for is bounded.

use anyhow::{Context, anyhow, bail};
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::pkcs5::scrypt;
use pkcs8::{DecodePrivateKey, EncodePrivateKey, EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use rand::TryRngCore;
use rand::rngs::OsRng;
use tops_protocol::keys::SecretKey;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::keys;

/// The shortest passphrase that seals a key.
pub const PASSPHRASE_MIN: usize = 8;
/// The longest passphrase; other programs read no longer ones.
pub const PASSPHRASE_MAX: usize = 512;
/// The longest text that is read as a key.
pub const TEXT_MAX: u64 = 16 * 1024;

/// scrypt's cost: 16 MiB and about a quarter of a second. OpenSSL opens nothing above 32 MiB; five lanes make up for it (OWASP's figures).
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;

/// The most memory that opening a file may take.
const OPEN_BYTES_MAX: u64 = 1 << 30;
/// The most blocks that scrypt may mix, and the most rounds of PBKDF2: half a minute of either on a slow core.
const OPEN_BLOCKS_MAX: u64 = 1 << 24;
const OPEN_ROUNDS_MAX: u32 = 20_000_000;

const SEALED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const PEM: &str = "-----BEGIN ";

/// The key under this passphrase.
pub fn seal(key: &SecretKey, passphrase: &Secret) -> anyhow::Result<Zeroizing<String>> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    let randomness = "the operating system gives no randomness";
    OsRng.try_fill_bytes(&mut salt).context(randomness)?;
    OsRng.try_fill_bytes(&mut iv).context(randomness)?;
    let fault = |what: &str| anyhow!("the key cannot be sealed: {what}");
    let cost = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P).map_err(|_| fault("scrypt's cost"))?;
    let parameters = Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|_| fault("scrypt's parameters"))?;
    let bytes = Zeroizing::new(key.to_bytes());
    let key = k256::SecretKey::from_slice(bytes.as_ref()).map_err(|_| fault("the key"))?;
    let document = key.to_pkcs8_der().map_err(|_| fault("its form"))?;
    let info = PrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| fault("its form"))?;
    let sealed = info.encrypt_with_params(parameters, passphrase.expose().as_bytes()).map_err(|_| fault("the cipher"))?;
    sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).map_err(|_| fault("its text"))
}

/// Whether a text needs a passphrase.
pub fn is_sealed(text: &str) -> bool {
    text.trim_start().starts_with(SEALED)
}

/// Reads a key that is not sealed: 64 hex digits, PKCS#8 or SEC1.
pub fn read(text: &str) -> anyhow::Result<SecretKey> {
    if !text.trim_start().starts_with(PEM) {
        return keys::parse(text);
    }
    let key = k256::SecretKey::from_pem(text.trim()).map_err(|_| anyhow!("this PEM file holds no secret key of secp256k1"))?;
    of_library(&key)
}

/// Opens a sealed key. `Ok(None)`: the passphrase is wrong, or the text is damaged behind its head; nobody can tell which.
pub fn open(text: &str, passphrase: &Secret) -> anyhow::Result<Option<SecretKey>> {
    let damaged = || anyhow!("this sealed key is damaged: its text was changed or cut");
    let (_, document) = SecretDocument::from_pem(text.trim()).map_err(|_| damaged())?;
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| damaged())?;
    bounded(&info)?;
    let Ok(inner) = info.decrypt(passphrase.expose().as_bytes()) else { return Ok(None) };
    // Wrong passphrases pass the padding once in 256 times.
    k256::SecretKey::from_pkcs8_der(inner.as_bytes()).ok().map(|key| of_library(&key)).transpose()
}

/// Refuses a file that asks for too much.
fn bounded(info: &EncryptedPrivateKeyInfoRef<'_>) -> anyhow::Result<()> {
    let kdf = info.encryption_algorithm.pbes2().map(|parameters| &parameters.kdf);
    let fair = match kdf {
        Some(Kdf::Scrypt(cost)) => {
            let blocks = cost.cost_parameter.saturating_mul(u64::from(cost.parallelization));
            let bytes = cost.cost_parameter.saturating_mul(128 * u64::from(cost.block_size));
            bytes <= OPEN_BYTES_MAX && blocks.saturating_mul(u64::from(cost.block_size)) / 8 <= OPEN_BLOCKS_MAX
        }
        Some(Kdf::Pbkdf2(cost)) => cost.iteration_count <= OPEN_ROUNDS_MAX,
        _ => bail!("this key is sealed in a way that is not known here: seal it anew with `openssl pkcs8 -topk8 -scrypt`"),
    };
    anyhow::ensure!(fair, "this sealed key asks for more memory or time than any honest one: it is damaged or hostile");
    Ok(())
}

fn of_library(key: &k256::SecretKey) -> anyhow::Result<SecretKey> {
    let bytes = Zeroizing::new(<[u8; 32]>::from(key.to_bytes()));
    SecretKey::from_bytes(&bytes).context("the key is no secret key of secp256k1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    // openssl ecparam -name secp256k1 -genkey, then pkcs8 -topk8 with -scrypt, with PBKDF2, and without a passphrase.
    const OPENSSL: &str = include_str!("../../tests/vectors/keys_openssl.pem");

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_alone() {
        let key = keys::generate().unwrap();
        let text = seal(&key, &secret("correct horse")).unwrap();
        assert!(is_sealed(&text) && !text.contains(keys::to_text(&key).as_str()));
        assert_eq!(open(&text, &secret("correct horse")).unwrap().unwrap().public(), key.public());
        for wrong in ["", "Correct horse", "correct horse "] {
            assert!(open(&text, &secret(wrong)).unwrap().is_none(), "{wrong}");
        }
        assert_ne!(text, seal(&key, &secret("correct horse")).unwrap(), "the salt is new each time");
    }

    #[test]
    fn what_openssl_wrote_is_read_in_every_form() {
        let parts: Vec<&str> = OPENSSL.split_inclusive("KEY-----\n").collect();
        let texts: Vec<String> = parts.chunks(2).map(|pair| pair.concat()).collect();
        assert_eq!(texts.len(), 4);
        let mut keys = Vec::new();
        for text in &texts {
            let key = if is_sealed(text) { open(text, &secret("from openssl")).unwrap().unwrap() } else { read(text).unwrap() };
            keys.push(key.public());
        }
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn damage_and_other_curves_are_one_sentence() {
        let key = keys::generate().unwrap();
        let text = seal(&key, &secret("correct horse")).unwrap();
        for cut in (30..text.len() - 1).step_by(37) {
            let cut = &text[..cut];
            assert!(open(cut, &secret("correct horse")).is_err(), "{cut}");
        }
        for wrong in ["-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----", "zz", ""] {
            let sentence = format!("{:#}", read(wrong).err().unwrap());
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn a_file_that_asks_for_the_whole_machine_is_refused() {
        let iv = [0; 16];
        let bytes = keys::generate().unwrap().to_bytes();
        let document = k256::SecretKey::from_slice(&bytes).unwrap().to_pkcs8_der().unwrap();
        let info = PrivateKeyInfoRef::try_from(document.as_bytes()).unwrap();
        let cheap = Parameters::generate_scrypt_aes256cbc(scrypt::Params::new(4, 8, 1).unwrap(), &[1; 16], iv).unwrap();
        let sealed = info.encrypt_with_params(cheap, b"x").unwrap();
        let der = sealed.as_bytes();
        // N = 16 is the only INTEGER of this value behind the salt: `02 01 10` becomes `02 01 7f`, and longer ones are made by the parser's own writer.
        let huge = Parameters::generate_scrypt_aes256cbc(scrypt::Params::new(40, 8, 1).unwrap(), &[1; 16], iv).unwrap();
        let mut info = EncryptedPrivateKeyInfoRef::try_from(der).unwrap();
        assert!(bounded(&info).is_ok());
        info.encryption_algorithm = huge.into();
        assert!(bounded(&info).is_err());
        info.encryption_algorithm = Parameters::generate_pbkdf2_sha256_aes256cbc(u32::MAX, &[1; 16], iv).unwrap().into();
        assert!(bounded(&info).is_err());
    }
}
