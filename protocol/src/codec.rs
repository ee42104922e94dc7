//! The only door from bytes to values and back: deterministic CBOR and the receipt's JSON text (spec §3).
//!
//! A decoder accepts exactly what the encoder writes. CBOR is decoded, encoded again and compared, because the library is
//! lenient about integer widths, indefinite lengths, tags and trailing bytes. Nothing is decoded into a self-describing value.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::error::StructuralFault;
use crate::receipt::{Receipt, ReceiptV1, Text};
use crate::types::{INTEGER_LIMIT, Millis, NetworkTag, Nonce, PublicKey, Root, Shape, Signature, parse_hex};

/// The largest wire form of a receipt.
pub const RECEIPT_WIRE_MAX: usize = 1_024;

/// The largest text form that is read: every field at its limit and generous white space.
pub const RECEIPT_TEXT_MAX: usize = 4_096;

/// Shortest-form CBOR of a value made of integers, strings, byte strings and arrays.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    match ciborium::into_writer(value, &mut out) {
        Ok(()) => out,
        Err(_) => unreachable!("writing to memory cannot fail and the shapes have no unserialisable part"),
    }
}

/// Reads a value whose bytes are exactly what [`encode`] would write, and no longer than `max`.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, StructuralFault> {
    if bytes.len() > max {
        return Err(StructuralFault::TooLarge { size: bytes.len(), max });
    }
    let value: T =
        ciborium::from_reader(bytes).map_err(|_| StructuralFault::Malformed { why: "the CBOR does not have the expected form" })?;
    if encode(&value) != bytes {
        return Err(StructuralFault::NotCanonical);
    }
    Ok(value)
}

/// The wire form: an array of thirteen, in the text's order.
#[derive(Serialize, Deserialize)]
struct Wire(
    String,
    u64,
    ByteArray<32>,
    u64,
    ByteArray<32>,
    (u64, u64, u64, u64),
    u64,
    String,
    String,
    ByteArray<8>,
    ByteArray<33>,
    u64,
    ByteArray<64>,
);

/// The canonical wire form of a receipt.
pub fn receipt_to_wire(r: &Receipt) -> Vec<u8> {
    encode(&Wire(
        r.device_did.as_str().to_owned(),
        r.epoch_id,
        ByteArray::new(r.prev_hash.0),
        r.nonce.get(),
        ByteArray::new(r.work_root.0),
        (r.shape.m().into(), r.shape.n().into(), r.shape.k().into(), r.batch),
        r.time_ms,
        r.kernel_ver.as_str().to_owned(),
        r.driver_hint.as_str().to_owned(),
        ByteArray::new(r.network.0),
        ByteArray::new(r.miner.0),
        r.timestamp.0,
        ByteArray::new(r.sig.0),
    ))
}

/// Reads the canonical wire form; anything else is refused.
pub fn receipt_from_wire(bytes: &[u8]) -> Result<Receipt, StructuralFault> {
    let w: Wire = decode(bytes, RECEIPT_WIRE_MAX)?;
    Ok(Receipt {
        device_did: text("device_did", w.0)?,
        epoch_id: integer("epoch_id", w.1)?,
        prev_hash: Root(w.2.into_array()),
        nonce: Nonce::new(w.3).ok_or(StructuralFault::Integer { field: "nonce" })?,
        work_root: Root(w.4.into_array()),
        shape: shape(w.5.0, w.5.1, w.5.2)?,
        batch: integer("sizes.batch", w.5.3)?,
        time_ms: integer("time_ms", w.6)?,
        kernel_ver: text("kernel_ver", w.7)?,
        driver_hint: text("driver_hint", w.8)?,
        network: NetworkTag(w.9.into_array()),
        miner: PublicKey(w.10.into_array()),
        timestamp: Millis(integer("timestamp_ms", w.11)?),
        sig: Signature(w.12.into_array()),
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextSizes {
    m: u64,
    n: u64,
    k: u64,
    batch: u64,
}

/// A JSON object and nothing else: the derive alone would also take an array of the values in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(core::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Entries<T> {
            type Value = T;
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Entries(core::marker::PhantomData)).map(Self)
    }
}

fn object<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|object| object.0)
}

/// A field that is there has a value: the derive alone would take `null` for a field that is not there.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The text form; the derive writes keys in this order and refuses unknown and duplicate ones.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextForm {
    device_did: String,
    epoch_id: u64,
    prev_hash_hex: String,
    nonce: u64,
    work_root_hex: String,
    #[serde(deserialize_with = "object")]
    sizes: TextSizes,
    time_ms: u64,
    kernel_ver: String,
    driver_hint: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    network_hex: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    miner_hex: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    timestamp_ms: Option<u64>,
    sig_hex: String,
}

fn write_text(form: &TextForm) -> String {
    match serde_json::to_string(form) {
        Ok(text) => text,
        Err(_) => unreachable!("strings and integers always serialise"),
    }
}

/// The text form of a receipt with the given signature field.
pub(crate) fn receipt_text(r: &Receipt, sig_hex: String) -> String {
    write_text(&TextForm {
        device_did: r.device_did.as_str().to_owned(),
        epoch_id: r.epoch_id,
        prev_hash_hex: r.prev_hash.to_hex(),
        nonce: r.nonce.get(),
        work_root_hex: r.work_root.to_hex(),
        sizes: TextSizes { m: r.shape.m().into(), n: r.shape.n().into(), k: r.shape.k().into(), batch: r.batch },
        time_ms: r.time_ms,
        kernel_ver: r.kernel_ver.as_str().to_owned(),
        driver_hint: r.driver_hint.as_str().to_owned(),
        network_hex: Some(r.network.to_hex()),
        miner_hex: Some(r.miner.to_hex()),
        timestamp_ms: Some(r.timestamp.0),
        sig_hex,
    })
}

/// The text form of a v1 receipt with the given signature field.
pub(crate) fn receipt_v1_text(r: &ReceiptV1, sig_hex: String) -> String {
    write_text(&TextForm {
        device_did: r.device_did.as_str().to_owned(),
        epoch_id: r.epoch_id,
        prev_hash_hex: r.prev_hash.to_hex(),
        nonce: r.nonce.into(),
        work_root_hex: r.work_root.to_hex(),
        sizes: TextSizes { m: r.m.into(), n: r.n.into(), k: r.k.into(), batch: r.batch },
        time_ms: r.time_ms,
        kernel_ver: r.kernel_ver.as_str().to_owned(),
        driver_hint: r.driver_hint.as_str().to_owned(),
        network_hex: None,
        miner_hex: None,
        timestamp_ms: None,
        sig_hex,
    })
}

/// A receipt of either work function, as a file or an HTTP body holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyReceipt {
    /// The network's form.
    V2(Receipt),
    /// The solo worker's form, which carries no key.
    V1(ReceiptV1),
}

/// Reads the text form of a v2 or v1 receipt. White space between tokens is allowed; the id is that of the text written anew.
pub fn receipt_from_text(json: &[u8]) -> Result<AnyReceipt, StructuralFault> {
    if json.len() > RECEIPT_TEXT_MAX {
        return Err(StructuralFault::TooLarge { size: json.len(), max: RECEIPT_TEXT_MAX });
    }
    let Object(t): Object<TextForm> = serde_json::from_slice(json).map_err(|e| StructuralFault::Malformed {
        why: if e.is_data() { "a key is missing, unknown, repeated or of the wrong type" } else { "the text is not JSON" },
    })?;
    let prev_hash = Root(hex_field("prev_hash_hex", &t.prev_hash_hex)?);
    let work_root = Root(hex_field("work_root_hex", &t.work_root_hex)?);
    let (device_did, kernel_ver, driver_hint) =
        (text("device_did", t.device_did)?, text("kernel_ver", t.kernel_ver)?, text("driver_hint", t.driver_hint)?);
    let (epoch_id, time_ms, batch) =
        (integer("epoch_id", t.epoch_id)?, integer("time_ms", t.time_ms)?, integer("sizes.batch", t.sizes.batch)?);
    match (t.network_hex, t.miner_hex, t.timestamp_ms) {
        (Some(network), Some(miner), Some(timestamp_ms)) => Ok(AnyReceipt::V2(Receipt {
            device_did,
            epoch_id,
            prev_hash,
            nonce: Nonce::new(t.nonce).ok_or(StructuralFault::Integer { field: "nonce" })?,
            work_root,
            shape: shape(t.sizes.m, t.sizes.n, t.sizes.k)?,
            batch,
            time_ms,
            kernel_ver,
            driver_hint,
            network: NetworkTag(hex_field("network_hex", &network)?),
            miner: PublicKey(hex_field("miner_hex", &miner)?),
            timestamp: Millis(integer("timestamp_ms", timestamp_ms)?),
            sig: Signature(hex_field("sig_hex", &t.sig_hex)?),
        })),
        (None, None, None) => {
            let side = |x: u64| u32::try_from(x).ok().filter(|x| (1..=8192).contains(x)).ok_or(StructuralFault::Shape);
            let sig = signature_bytes(&t.sig_hex)?;
            Ok(AnyReceipt::V1(ReceiptV1 {
                device_did,
                epoch_id,
                prev_hash,
                nonce: u32::try_from(t.nonce).map_err(|_| StructuralFault::Malformed { why: "a v1 nonce has 32 bits" })?,
                work_root,
                m: side(t.sizes.m)?,
                n: side(t.sizes.n)?,
                k: side(t.sizes.k)?,
                batch,
                time_ms,
                kernel_ver,
                driver_hint,
                sig,
            }))
        }
        _ => Err(StructuralFault::Malformed { why: "network_hex, miner_hex and timestamp_ms come together or not at all" }),
    }
}

/// A v1 signature: 64 bytes compact or DER, at most 72 bytes.
fn signature_bytes(text: &str) -> Result<Vec<u8>, StructuralFault> {
    let fault = StructuralFault::Hex { field: "sig_hex", digits: 128 };
    if text.len() > 144 || text.is_empty() || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(fault);
    }
    hex::decode(text).map_err(|_| fault)
}

fn hex_field<const N: usize>(field: &'static str, value: &str) -> Result<[u8; N], StructuralFault> {
    parse_hex(value).map_err(|_| StructuralFault::Hex { field, digits: 2 * N })
}

fn integer(field: &'static str, value: u64) -> Result<u64, StructuralFault> {
    if value < INTEGER_LIMIT { Ok(value) } else { Err(StructuralFault::Integer { field }) }
}

fn text(field: &'static str, value: String) -> Result<Text, StructuralFault> {
    Text::new(value).ok_or(StructuralFault::Text { field })
}

fn shape(m: u64, n: u64, k: u64) -> Result<Shape, StructuralFault> {
    let side = |x: u64| u32::try_from(x).map_err(|_| StructuralFault::Shape);
    Shape::new(side(m)?, side(n)?, side(k)?).ok_or(StructuralFault::Shape)
}
