//! Receipts: what a miner says of an attempt, its id, and what is signed (spec §3).
//!
//! A [`Receipt`] is plain data in range. That its signature, its place in the chain and its root stand is what the
//! types of [`crate::verify`] say.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::codec;
use crate::types::{Attempt, Millis, NetworkTag, Nonce, PublicKey, ReceiptId, Root, Shape, Signature, UnitId};
use crate::work;

/// The work function of the network, as receipts name it.
pub const KERNEL_V2: &str = "gemm_int8_relu_q_v2";
/// The solo worker's work function.
pub const KERNEL_V1: &str = "gemm_int8_relu_q_v1";
/// The longest text field.
pub const TEXT_MAX: usize = 128;

/// 1 to 128 printable ASCII characters without quote and backslash, so that no JSON writer escapes anything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(String);

impl Text {
    /// `None` when a character or the length is not allowed.
    pub fn new(value: impl Into<String>) -> Option<Self> {
        let value = value.into();
        let fits = (1..=TEXT_MAX).contains(&value.len()) && value.bytes().all(Self::allowed);
        fits.then_some(Self(value))
    }
    /// Makes any string fit: other characters become `_`, the end is cut, nothing becomes `unknown`.
    pub fn cleaned(value: &str) -> Self {
        let mut text: String = value.trim().bytes().map(|b| if Self::allowed(b) { char::from(b) } else { '_' }).take(TEXT_MAX).collect();
        if text.is_empty() {
            text.push_str("unknown");
        }
        Self(text)
    }
    fn allowed(byte: u8) -> bool {
        (0x20..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\'
    }
    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A v2 receipt. Only the attempt, the root and the signature count; the rest is the miner's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The device's name for people.
    pub device_did: Text,
    /// Height of the head it is keyed on, plus one.
    pub epoch_id: u64,
    /// The head it is keyed on.
    pub prev_hash: Root,
    /// Which attempt.
    pub nonce: Nonce,
    /// The claimed root.
    pub work_root: Root,
    /// The network's shape.
    pub shape: Shape,
    /// Attempts the finder ran in a launch; information.
    pub batch: u64,
    /// How long the launch took; information.
    pub time_ms: u64,
    /// The work function's name.
    pub kernel_ver: Text,
    /// The driver's name; information.
    pub driver_hint: Text,
    /// Which network.
    pub network: NetworkTag,
    /// Whose attempt it is, and the key that signs.
    pub miner: PublicKey,
    /// The miner's clock when the job was made.
    pub timestamp: Millis,
    /// ECDSA over the prehash, low s.
    pub sig: Signature,
}

impl Receipt {
    /// What the root depends on.
    pub fn attempt(&self) -> Attempt {
        Attempt { prev_hash: self.prev_hash, miner: self.miner, nonce: self.nonce, timestamp: self.timestamp, shape: self.shape }
    }
    /// The unit's id: the attempt seed.
    pub fn unit(&self) -> UnitId {
        work::unit_id(&self.attempt())
    }
    /// The text form.
    pub fn to_text(&self) -> String {
        codec::receipt_text(self, self.sig.to_hex())
    }
    /// The text form with an empty signature.
    pub fn signing_text(&self) -> String {
        codec::receipt_text(self, String::new())
    }
    /// BLAKE3 of the signing text.
    pub fn id(&self) -> ReceiptId {
        ReceiptId(*blake3::hash(self.signing_text().as_bytes()).as_bytes())
    }
    /// The canonical wire form.
    pub fn to_wire(&self) -> Vec<u8> {
        codec::receipt_to_wire(self)
    }
}

/// What an ECDSA signature covers: SHA-256 of the id.
pub fn prehash(id: &ReceiptId) -> [u8; 32] {
    Sha256::digest(id.0).into()
}

/// A receipt that still needs its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    receipt: Receipt,
    id: ReceiptId,
}

impl Draft {
    /// Drops whatever signature the receipt has.
    pub fn new(mut receipt: Receipt) -> Self {
        receipt.sig = Signature([0; 64]);
        let id = receipt.id();
        Self { receipt, id }
    }
    /// What to sign.
    pub fn prehash(&self) -> [u8; 32] {
        prehash(&self.id)
    }
    /// The unsigned receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }
    /// Puts the signature in; that it stands is checked by stage 2.
    pub fn with_signature(self, sig: Signature) -> Receipt {
        Receipt { sig, ..self.receipt }
    }
}

/// A receipt of the solo worker (spec §2, §3). It carries no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptV1 {
    /// The device's name for people.
    pub device_did: Text,
    /// The aggregator's epoch.
    pub epoch_id: u64,
    /// What the attempt is keyed on.
    pub prev_hash: Root,
    /// 32-bit nonce.
    pub nonce: u32,
    /// The claimed root.
    pub work_root: Root,
    /// Rows, 1..=8192.
    pub m: u32,
    /// Outputs, 1..=8192.
    pub n: u32,
    /// Columns, 1..=8192.
    pub k: u32,
    /// Always information.
    pub batch: u64,
    /// How long the attempt took.
    pub time_ms: u64,
    /// The work function's name.
    pub kernel_ver: Text,
    /// The driver's name.
    pub driver_hint: Text,
    /// DER or 64 bytes compact.
    pub sig: Vec<u8>,
}

impl ReceiptV1 {
    /// The text form.
    pub fn to_text(&self) -> String {
        codec::receipt_v1_text(self, hex::encode(&self.sig))
    }
    /// BLAKE3 of the text form with an empty signature.
    pub fn id(&self) -> ReceiptId {
        ReceiptId(*blake3::hash(codec::receipt_v1_text(self, String::new()).as_bytes()).as_bytes())
    }
}
