//! ECDSA over secp256k1 (RFC 6979, low s), as receipts use it (spec §3). The engine never holds a secret; the node does.

use k256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use k256::ecdsa::{Signature as Ecdsa, SigningKey, VerifyingKey};

use crate::error::SemanticFault;
use crate::types::{PublicKey, Signature};

/// A miner's secret; wiped from memory when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// `None` for zero and for numbers past the group's order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        SigningKey::from_slice(bytes).ok().map(Self)
    }
    /// The scalar, big-endian. Wipe it after use.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes().into()
    }
    /// The compressed public key.
    pub fn public(&self) -> PublicKey {
        let point = self.0.verifying_key().to_sec1_point(true);
        let mut key = [0; 33];
        key.copy_from_slice(point.as_bytes());
        PublicKey(key)
    }
    /// Signs a 32-byte prehash; deterministic, low s.
    pub fn sign(&self, prehash: &[u8; 32]) -> Signature {
        let signature: Ecdsa = match self.0.sign_prehash(prehash) {
            Ok(signature) => signature,
            Err(_) => unreachable!("a 32-byte prehash always signs"),
        };
        Signature(signature.normalize_s().to_bytes().into())
    }
}

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// Checks a compact signature of a prehash.
pub fn verify(key: &PublicKey, prehash: &[u8; 32], sig: &Signature) -> Result<(), SemanticFault> {
    let key = point(&key.0)?;
    let sig = Ecdsa::from_slice(&sig.0).map_err(|_| SemanticFault::Malformed)?;
    check(&key, prehash, &sig)
}

/// Checks a signature as the original worker's receivers take it: key of 33 or 65 bytes, signature DER or 64 bytes compact.
pub fn verify_lenient(key: &[u8], prehash: &[u8; 32], sig: &[u8]) -> Result<(), SemanticFault> {
    let key = point(key)?;
    let sig = if sig.len() == 64 { Ecdsa::from_slice(sig) } else { Ecdsa::from_der(sig) }.map_err(|_| SemanticFault::Malformed)?;
    check(&key, prehash, &sig)
}

/// A key in SEC1's compressed (02, 03) or uncompressed (04) form. The library also takes its compact form (05), in which one secret would have
/// two keys, and which other implementations refuse.
fn point(key: &[u8]) -> Result<VerifyingKey, SemanticFault> {
    match (key.first(), key.len()) {
        (Some(2 | 3), 33) | (Some(4), 65) => VerifyingKey::from_sec1_bytes(key).map_err(|_| SemanticFault::Key),
        _ => Err(SemanticFault::Key),
    }
}

fn check(key: &VerifyingKey, prehash: &[u8; 32], sig: &Ecdsa) -> Result<(), SemanticFault> {
    if sig.normalize_s() != *sig {
        return Err(SemanticFault::HighS);
    }
    key.verify_prehash(prehash, sig).map_err(|_| SemanticFault::Mismatch)
}
