//! Every decoder of the law against hostile bytes: garbage, cut, flipped, oversized, and every other encoding of the same value.
//! What they accept is exactly what the encoder writes; everything else is an error of a named stage, never a panic.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use proptest::prelude::*;
use tops_protocol::codec::{self, AnyReceipt, RECEIPT_TEXT_MAX, RECEIPT_WIRE_MAX};
use tops_protocol::error::{Consequence, ContextFault, SemanticFault, StructuralFault};
use tops_protocol::keys::{self, SecretKey};
use tops_protocol::network::Fields;
use tops_protocol::receipt::{Draft, KERNEL_V1, KERNEL_V2, ReceiptV1, Text, prehash};
use tops_protocol::target::{self, Anchor, Bits};
use tops_protocol::verify::{ParentFacts, Structural};
use tops_protocol::{Height, Millis, NetworkSpec, NetworkTag, Nonce, PublicKey, Receipt, Root, Shape, Signature, U256};

type U512 = ruint::Uint<512, 8>;

const LIMIT: u64 = 1 << 53;

/// The text form's keys in their order (spec §3).
const TEXT_KEYS: [&str; 13] = [
    "device_did",
    "epoch_id",
    "prev_hash_hex",
    "nonce",
    "work_root_hex",
    "sizes",
    "time_ms",
    "kernel_ver",
    "driver_hint",
    "network_hex",
    "miner_hex",
    "timestamp_ms",
    "sig_hex",
];

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn signed(mut receipt: Receipt, key: &SecretKey) -> Receipt {
    receipt.miner = key.public();
    let draft = Draft::new(receipt);
    let sig = key.sign(&draft.prehash());
    draft.with_signature(sig)
}

/// A true signature on `dev`; its root is invented, which stages 1 and 2 do not see.
fn sample() -> Receipt {
    let dev = NetworkSpec::dev();
    let receipt = Receipt {
        device_did: Text::new("did:key:sample").unwrap(),
        epoch_id: 1,
        prev_hash: dev.genesis(),
        nonce: Nonce::new(70_000).unwrap(),
        work_root: Root([9; 32]),
        shape: dev.shape(),
        batch: 4_096,
        time_ms: 23,
        kernel_ver: Text::new(KERNEL_V2).unwrap(),
        driver_hint: Text::new("CPU").unwrap(),
        network: dev.tag(),
        miner: PublicKey([0; 33]),
        timestamp: Millis(1_790_990_688_974),
        sig: Signature([0; 64]),
    };
    signed(receipt, &secret(7))
}

fn receipts() -> impl Strategy<Value = Receipt> {
    let text = "[ !#-\\[\\]-~]{1,128}".prop_map(|t| Text::new(t).unwrap());
    let side = (8u32..=13).prop_map(|log2| 1 << log2);
    let shape = ((1u32..=512).prop_map(|x| x * 16), side.clone(), side).prop_map(|(m, n, k)| Shape::new(m, n, k).unwrap());
    let numbers = (0..LIMIT, 0..LIMIT, 0..LIMIT, 0..LIMIT, 0..LIMIT);
    (text.clone(), text, shape, numbers, any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 8]>(), 1u8..=254).prop_map(
        |(device_did, driver_hint, shape, (epoch_id, nonce, batch, time_ms, at), prev, root, network, key)| {
            let receipt = Receipt {
                device_did,
                epoch_id,
                prev_hash: Root(prev),
                nonce: Nonce::new(nonce).unwrap(),
                work_root: Root(root),
                shape,
                batch,
                time_ms,
                kernel_ver: Text::new(KERNEL_V2).unwrap(),
                driver_hint,
                network: NetworkTag(network),
                miner: PublicKey([0; 33]),
                timestamp: Millis(at),
                sig: Signature([0; 64]),
            };
            signed(receipt, &secret(key))
        },
    )
}

/// What the solo worker writes, signed with `secret(7)`.
fn receipts_v1() -> impl Strategy<Value = ReceiptV1> {
    let text = "[ !#-\\[\\]-~]{1,128}".prop_map(|t| Text::new(t).unwrap());
    let side = 1u32..=8192;
    let numbers = (0..LIMIT, any::<u32>(), 0..LIMIT, 0..LIMIT);
    (text.clone(), text, (side.clone(), side.clone(), side), numbers, any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(
        |(device_did, driver_hint, (m, n, k), (epoch_id, nonce, batch, time_ms), prev, root)| {
            let unsigned = ReceiptV1 {
                device_did,
                epoch_id,
                prev_hash: Root(prev),
                nonce,
                work_root: Root(root),
                m,
                n,
                k,
                batch,
                time_ms,
                kernel_ver: Text::new(KERNEL_V1).unwrap(),
                driver_hint,
                sig: Vec::new(),
            };
            let sig = secret(7).sign(&prehash(&unsigned.id()));
            ReceiptV1 { sig: sig.0.to_vec(), ..unsigned }
        },
    )
}

/// Changes at some places of a text: what is removed there, and what is put in its stead.
fn edits() -> impl Strategy<Value = Vec<(proptest::sample::Index, usize, Vec<u8>)>> {
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(&b"0123456789abcdefABCDEF\"\\,:{}[] \nu-+.e"[..])];
    proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..4, proptest::collection::vec(byte, 0..4)), 1..6)
}

fn edited(text: &str, edits: &[(proptest::sample::Index, usize, Vec<u8>)]) -> Vec<u8> {
    edits.iter().fold(text.as_bytes().to_vec(), |bytes, (at, remove, insert)| {
        let at = at.index(bytes.len() + 1);
        spliced(&bytes, at, (*remove).min(bytes.len() - at), insert)
    })
}

/// Which stage refuses bytes that claim to be a receipt of `network`; `None`: neither of the first two does.
fn refused_by(bytes: &[u8], network: &NetworkSpec) -> Option<&'static str> {
    match Structural::from_wire(bytes, network) {
        Err(_) => Some("structural"),
        Ok(structural) => structural.semantic().err().map(|_| "semantic"),
    }
}

/// Where the CBOR heads of a wire form are: offset, major type, argument and the head's length.
fn heads(wire: &[u8]) -> Vec<(usize, u8, u64, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < wire.len() {
        let (major, low) = (wire[at] >> 5, wire[at] & 31);
        let extra = if low < 24 { 0 } else { 1usize << (low - 24) };
        let value = if low < 24 { u64::from(low) } else { wire[at + 1..=at + extra].iter().fold(0, |v, &b| v << 8 | u64::from(b)) };
        found.push((at, major, value, 1 + extra));
        at += 1 + extra;
        if major == 2 || major == 3 {
            at += usize::try_from(value).unwrap();
        }
    }
    assert_eq!(at, wire.len());
    found
}

/// A head of any width, shortest or not.
fn head(major: u8, width: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![major << 5 | (24 + width)];
    bytes.extend_from_slice(&value.to_be_bytes()[8 - (1 << width)..]);
    bytes
}

fn spliced(wire: &[u8], at: usize, remove: usize, insert: &[u8]) -> Vec<u8> {
    let mut bytes = wire[..at].to_vec();
    bytes.extend_from_slice(insert);
    bytes.extend_from_slice(&wire[at + remove..]);
    bytes
}

#[test]
fn no_flipped_bit_of_the_wire_form_is_accepted() {
    let (dev, wire) = (NetworkSpec::dev(), sample().to_wire());
    assert_eq!(refused_by(&wire, &dev), None);
    let mut stages = [0u32; 2];
    for at in 0..wire.len() {
        for bit in 0..8 {
            let mut flipped = wire.clone();
            flipped[at] ^= 1 << bit;
            match refused_by(&flipped, &dev) {
                Some("structural") => stages[0] += 1,
                Some("semantic") => stages[1] += 1,
                other => panic!("bit {bit} of byte {at}: {other:?}"),
            }
        }
    }
    assert!(stages.iter().all(|&n| n > 100), "{stages:?}");
}

#[test]
fn no_flipped_bit_of_the_text_form_is_accepted() {
    let text = sample().to_text().into_bytes();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[at] ^= 1 << bit;
            let Ok(AnyReceipt::V2(receipt)) = codec::receipt_from_text(&flipped) else { continue };
            let Ok(structural) = Structural::of_any_network(receipt) else { continue };
            assert!(structural.semantic().is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn no_other_encoding_of_the_same_value_is_accepted() {
    let (dev, wire) = (NetworkSpec::dev(), sample().to_wire());
    let heads = heads(&wire);
    assert_eq!(heads.len(), 1 + 13 + 4);
    for &(at, major, value, len) in &heads {
        for width in 0..4 {
            let other = head(major, width, value);
            if value >> 1 >> ((8u32 << width) - 1) == 0 && other[..] != wire[at..at + len] {
                assert_eq!(refused_by(&spliced(&wire, at, len, &other), &dev), Some("structural"), "width {width} at {at}");
            }
        }
        for tag in [&[0xc0][..], &[0xc2], &[0xd9, 0xd9, 0xf7]] {
            assert_eq!(refused_by(&spliced(&wire, at, 0, tag), &dev), Some("structural"), "tag at {at}");
        }
        // Indefinite lengths: one chunk with all of it, or an open array that ends where it did.
        if major == 2 || major == 3 {
            let end = at + len + usize::try_from(value).unwrap();
            let open = spliced(&spliced(&wire, end, 0, &[0xff]), at, 0, &[major << 5 | 31]);
            assert_eq!(refused_by(&open, &dev), Some("structural"), "open string at {at}");
            let other_kind = spliced(&wire, at, 1, &[wire[at] ^ 0x20]);
            assert_eq!(refused_by(&other_kind, &dev), Some("structural"), "text for bytes at {at}");
        }
        // Lengths and integers that no memory holds.
        for huge in [1 << 53, 1 << 60, u64::MAX] {
            assert_eq!(refused_by(&spliced(&wire, at, len, &head(major, 3, huge)), &dev), Some("structural"), "{huge} at {at}");
        }
    }
    let open = [&[0x9f][..], &wire[1..], &[0xff]].concat();
    assert_eq!(refused_by(&open, &dev), Some("structural"));
    assert_eq!(Structural::from_wire(&[&wire[..], &[0]].concat(), &dev), Err(StructuralFault::NotCanonical));
    assert!(Structural::from_wire(&[&wire[..], &wire].concat(), &dev).is_err());
    let long = vec![0x8d; RECEIPT_WIRE_MAX + 1];
    assert_eq!(Structural::from_wire(&long, &dev), Err(StructuralFault::TooLarge { size: RECEIPT_WIRE_MAX + 1, max: RECEIPT_WIRE_MAX }));
    // Nesting is no way to the end of the stack.
    for open in [0x81, 0x9f, 0xa1, 0xc1, 0x5f] {
        assert!(codec::receipt_from_wire(&[open; RECEIPT_WIRE_MAX]).is_err());
    }
}

#[test]
fn every_cut_is_an_error() {
    let (dev, receipt) = (NetworkSpec::dev(), sample());
    let (wire, text) = (receipt.to_wire(), receipt.to_text());
    for end in 0..wire.len() {
        assert_eq!(refused_by(&wire[..end], &dev), Some("structural"));
    }
    for end in 0..text.len() {
        assert!(codec::receipt_from_text(&text.as_bytes()[..end]).is_err());
    }
}

#[test]
fn texts_that_break_the_form() {
    let text = sample().to_text();
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        codec::receipt_from_text(text.replacen(from, to, 1).as_bytes()).unwrap_err()
    };
    let malformed = |fault: StructuralFault| assert!(matches!(fault, StructuralFault::Malformed { .. }), "{fault}");
    malformed(refused("\"epoch_id\":1", "\"epoch_id\":-1"));
    malformed(refused("\"epoch_id\":1", "\"epoch_id\":1.0"));
    malformed(refused("\"epoch_id\":1", "\"epoch_id\":\"1\""));
    malformed(refused("\"epoch_id\":1", "\"epoch_id\":18446744073709551616"));
    malformed(refused("\"epoch_id\":1,", "\"epoch_id\":1,\"epoch_id\":1,"));
    malformed(refused("\"epoch_id\":1,", "\"epoch_id\":1,\"fee\":1,"));
    malformed(refused("\"epoch_id\":1,", ""));
    malformed(refused("\"m\":16,", "\"m\":16,\"m\":16,"));
    malformed(refused("{\"m\":16,\"n\":256,\"k\":256,\"batch\":4096}", "[16,256,256,4096]"));
    malformed(refused("\"timestamp_ms\":1790990688974,", ""));
    malformed(refused("\"nonce\":70000", "\"nonce\":null"));
    // A receipt of the other version does not have these at all.
    let mut nulls: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap();
    for key in ["network_hex", "miner_hex", "timestamp_ms"] {
        nulls.insert(key.into(), serde_json::Value::Null);
    }
    malformed(codec::receipt_from_text(serde_json::to_string(&nulls).unwrap().as_bytes()).unwrap_err());
    assert_eq!(refused("\"nonce\":70000", "\"nonce\":9007199254740992"), StructuralFault::Integer { field: "nonce" });
    assert_eq!(refused("\"batch\":4096", "\"batch\":9007199254740992"), StructuralFault::Integer { field: "sizes.batch" });
    assert_eq!(refused("\"m\":16", "\"m\":17"), StructuralFault::Shape);
    assert_eq!(refused("\"m\":16", "\"m\":4294967312"), StructuralFault::Shape);
    assert_eq!(refused("\"driver_hint\":\"CPU\"", "\"driver_hint\":\"\""), StructuralFault::Text { field: "driver_hint" });
    assert_eq!(refused("\"driver_hint\":\"CPU\"", "\"driver_hint\":\"C\\\"U\""), StructuralFault::Text { field: "driver_hint" });
    assert_eq!(refused("\"driver_hint\":\"CPU\"", "\"driver_hint\":\"é\""), StructuralFault::Text { field: "driver_hint" });
    let values: Vec<serde_json::Value> = {
        let form: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap();
        TEXT_KEYS.iter().map(|key| form[*key].clone()).collect()
    };
    malformed(codec::receipt_from_text(serde_json::to_string(&values).unwrap().as_bytes()).unwrap_err());
    let hex = StructuralFault::Hex { field: "work_root_hex", digits: 64 };
    assert_eq!(refused("\"work_root_hex\":\"09", "\"work_root_hex\":\"0A"), hex);
    assert_eq!(refused("\"work_root_hex\":\"09", "\"work_root_hex\":\""), hex);
    assert_eq!(refused("\"work_root_hex\":\"09", "\"work_root_hex\":\"0x"), hex);
    let deep = [b'['; RECEIPT_TEXT_MAX];
    assert!(codec::receipt_from_text(&deep).is_err());
    let long = vec![b' '; RECEIPT_TEXT_MAX + 1];
    assert!(matches!(codec::receipt_from_text(&long), Err(StructuralFault::TooLarge { .. })));

    // White space and another order of keys say the same: the id is that of the text written anew.
    let spaced = text.replace(',', " ,\n ").replace(':', ": ").replacen("did: key: sample", "did:key:sample", 1);
    assert_eq!(codec::receipt_from_text(spaced.as_bytes()), Ok(AnyReceipt::V2(sample())));
    let moved = text.replacen("\"epoch_id\":1,", "", 1).replacen("\"time_ms\"", "\"epoch_id\":1,\"time_ms\"", 1);
    assert_eq!(codec::receipt_from_text(moved.as_bytes()), Ok(AnyReceipt::V2(sample())));
}

#[test]
fn a_high_s_is_refused() {
    let receipt = sample();
    // s' = n − s signs the same text; accepting it would give each receipt a second wire form.
    let order = U256::from_be_bytes(parse32("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"));
    let mut sig = receipt.sig.0;
    let mut s = [0; 32];
    s.copy_from_slice(&sig[32..]);
    sig[32..].copy_from_slice(&(order - U256::from_be_bytes(s)).to_be_bytes::<32>());
    let high = Receipt { sig: Signature(sig), ..receipt };
    assert_eq!(Structural::from_wire(&high.to_wire(), &NetworkSpec::dev()).unwrap().semantic(), Err(SemanticFault::HighS));
}

fn parse32(text: &str) -> [u8; 32] {
    tops_protocol::types::parse_hex(text).unwrap()
}

#[test]
fn each_fault_of_context_has_its_name_and_price() {
    let dev = NetworkSpec::dev();
    let semantic = |receipt: &Receipt| Structural::from_wire(&receipt.to_wire(), &dev).unwrap().semantic().unwrap();
    let bits = dev.genesis_bits();
    let parent = ParentFacts {
        root: dev.genesis(),
        height: Height(0),
        head_target: bits.target(),
        share_target: target::share_target(bits.target(), dev.share_log2()),
        median: dev.genesis_time(),
    };
    let share = parent.share_target;
    let key = secret(7);
    let with_root = |ticket: U256| signed(Receipt { work_root: Root(ticket.to_be_bytes()), ..sample() }, &key);

    // The targets themselves still count; one more does not.
    let at = |ticket: U256| semantic(&with_root(ticket)).contextual(&parent);
    assert!(at(parent.head_target).unwrap().is_head());
    assert!(!at(parent.head_target + U256::from(1)).unwrap().is_head());
    assert!(!at(share).unwrap().is_head());
    assert_eq!(at(share + U256::from(1)), Err(ContextFault::AboveShareTarget));

    let good = with_root(share);
    let refused = |receipt: Receipt| semantic(&signed(receipt, &key)).contextual(&parent).unwrap_err();
    assert_eq!(refused(Receipt { epoch_id: 2, ..good.clone() }), ContextFault::Epoch);
    assert_eq!(refused(Receipt { epoch_id: 0, ..good.clone() }), ContextFault::Epoch);
    assert_eq!(refused(Receipt { timestamp: parent.median, ..good.clone() }), ContextFault::MedianTime);
    assert_eq!(refused(Receipt { prev_hash: Root([1; 32]), ..good.clone() }), ContextFault::UnknownParent);
    assert!(semantic(&signed(Receipt { timestamp: Millis(1), ..good.clone() }, &key)).contextual(&parent).is_ok());

    let early = semantic(&good);
    assert_eq!(early.too_early_until(Millis(good.timestamp.0 - 15_000)), None);
    assert_eq!(early.too_early_until(Millis(good.timestamp.0 - 15_001)), Some(Millis(good.timestamp.0 - 15_000)));

    let contextual = at(share).unwrap();
    let fault = contextual.clone().audited(Root([3; 32])).unwrap_err();
    assert_eq!((fault.claimed, fault.computed), (good.work_root, Root([3; 32])));
    assert!(contextual.audited(good.work_root).is_ok());
    for fault in [ContextFault::AboveShareTarget, ContextFault::Epoch, ContextFault::MedianTime, ContextFault::WrongTopic] {
        assert_eq!(fault.consequence(), Consequence::Reject);
    }
    for fault in [ContextFault::UnknownParent, ContextFault::AheadOfClock] {
        assert_eq!(fault.consequence(), Consequence::Hold);
    }
}

#[test]
fn receipts_of_other_networks_shapes_and_kernels_stop_at_stage_one() {
    let dev = NetworkSpec::dev();
    let stage1 = |receipt: Receipt| Structural::from_wire(&signed(receipt, &secret(7)).to_wire(), &dev).unwrap_err();
    assert_eq!(stage1(Receipt { network: NetworkTag([0; 8]), ..sample() }), StructuralFault::Network);
    assert_eq!(stage1(Receipt { shape: Shape::STANDARD, ..sample() }), StructuralFault::ForeignShape);
    let v1 = Text::new("gemm_int8_relu_q_v1").unwrap();
    assert_eq!(stage1(Receipt { kernel_ver: v1, ..sample() }), StructuralFault::Kernel { expected: KERNEL_V2 });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_give_the_value_back(receipt in receipts()) {
        let wire = receipt.to_wire();
        prop_assert!(wire.len() <= RECEIPT_WIRE_MAX);
        let again = codec::receipt_from_wire(&wire);
        prop_assert_eq!(again.as_ref(), Ok(&receipt));
        let text = receipt.to_text();
        prop_assert!(text.len() <= RECEIPT_TEXT_MAX);
        prop_assert_eq!(codec::receipt_from_text(text.as_bytes()), Ok(AnyReceipt::V2(receipt.clone())));
        prop_assert!(Structural::of_any_network(receipt).unwrap().semantic().is_ok());
    }

    #[test]
    fn what_the_wire_decoder_takes_is_what_the_encoder_writes(bytes in proptest::collection::vec(any::<u8>(), 0..2_048)) {
        if let Ok(receipt) = codec::receipt_from_wire(&bytes) {
            prop_assert_eq!(receipt.to_wire(), bytes);
        }
    }

    #[test]
    fn scrambled_wire_forms_are_canonical_or_refused(
        receipt in receipts(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0usize..4, 0usize..4), 1..6),
    ) {
        let original = receipt.to_wire();
        let mut bytes = original.clone();
        for (at, byte, remove, insert) in edits {
            if bytes.is_empty() { break }
            let at = at.index(bytes.len());
            let remove = remove.min(bytes.len() - at);
            bytes = spliced(&bytes, at, remove, &vec![byte; insert]);
        }
        if let Ok(read) = codec::receipt_from_wire(&bytes) {
            prop_assert_eq!(read.to_wire(), bytes.clone());
            // Whatever was changed, it is under the signature.
            let stands = Structural::of_any_network(read).ok().and_then(|s| s.semantic().ok()).is_some();
            prop_assert_eq!(stands, bytes == original);
        }
    }

    #[test]
    fn scrambled_texts_are_refused_or_read_the_same_again(receipt in receipts(), edits in edits()) {
        let bytes = edited(&receipt.to_text(), &edits);
        match codec::receipt_from_text(&bytes) {
            Ok(AnyReceipt::V2(read)) => {
                prop_assert_eq!(codec::receipt_from_text(read.to_text().as_bytes()), Ok(AnyReceipt::V2(read.clone())));
                let same = read == receipt;
                // Whatever it says otherwise, it is under the signature.
                let stands = Structural::of_any_network(read).ok().and_then(|s| s.semantic().ok()).is_some();
                prop_assert_eq!(stands, same);
            }
            // Three keys cannot leave at once.
            other => {
                prop_assert!(other.is_err(), "{other:?}");
            }
        }
    }

    #[test]
    fn scrambled_texts_of_v1_are_refused_or_read_the_same_again(receipt in receipts_v1(), edits in edits()) {
        prop_assert_eq!(codec::receipt_from_text(receipt.to_text().as_bytes()), Ok(AnyReceipt::V1(receipt.clone())));
        let bytes = edited(&receipt.to_text(), &edits);
        match codec::receipt_from_text(&bytes) {
            Ok(AnyReceipt::V1(read)) => {
                prop_assert_eq!(codec::receipt_from_text(read.to_text().as_bytes()), Ok(AnyReceipt::V1(read.clone())));
                let stands = keys::verify_lenient(&secret(7).public().0, &prehash(&read.id()), &read.sig).is_ok();
                prop_assert_eq!(stands, read == receipt);
            }
            // Three keys cannot come at once.
            other => {
                prop_assert!(other.is_err(), "{other:?}");
            }
        }
    }

    #[test]
    fn garbage_is_no_text(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(codec::receipt_from_text(&bytes).is_err());
    }

    #[test]
    fn json_of_other_forms_is_no_receipt(text in "[\\[\\]{}:,\"0-9a-z_ .-]{0,300}") {
        prop_assert!(codec::receipt_from_text(text.as_bytes()).is_err());
    }

    #[test]
    fn text_fields_hold_their_set(raw in "\\PC{0,200}") {
        let cleaned = Text::cleaned(&raw);
        prop_assert_eq!(Text::new(cleaned.as_str().to_owned()), Some(cleaned.clone()));
        let json = serde_json::to_string(cleaned.as_str()).unwrap();
        prop_assert_eq!(json.len(), cleaned.as_str().len() + 2);
    }

    #[test]
    fn networks_out_of_range_are_refused(
        sides in (any::<u32>(), any::<u32>(), any::<u32>()),
        times in (any::<u32>(), any::<u32>(), any::<u64>()),
        bits in (any::<u32>(), any::<u32>()),
        small in (0u32..40, 0u32..100),
        sane_shape: bool,
    ) {
        let (m, n, k) = if sane_shape { (16, 256, 256) } else { sides };
        let fields = Fields {
            m, n, k,
            spacing_secs: times.0,
            half_life_secs: times.1,
            genesis_bits: bits.0,
            easiest_bits: bits.1,
            share_log2: small.0,
            stale_window: small.1,
            genesis_time_ms: times.2,
        };
        if let Ok(spec) = NetworkSpec::new(fields) {
            prop_assert_eq!(spec.fields(), &fields);
            prop_assert!(spec.genesis_bits().target() <= spec.easiest_bits().target());
            prop_assert!(Shape::new(m, n, k).is_some() && small.0 <= 16 && (1..=64).contains(&small.1));
            prop_assert!(times.0 > 0 && times.1 > 0 && times.2 < LIMIT);
        }
    }

    #[test]
    fn network_fields_read_nothing_but_themselves(text in "[\\[\\]{}:,\"0-9a-z_ .-]{0,300}", extra in "[a-z]{1,8}") {
        prop_assert!(serde_json::from_str::<Fields>(&text).is_err());
        let whole = serde_json::to_string(NetworkSpec::dev().fields()).unwrap();
        let fields: Fields = serde_json::from_str(&whole).unwrap();
        prop_assert_eq!(fields, *NetworkSpec::dev().fields());
        if !["m", "n", "k"].contains(&extra.as_str()) {
            let more = whole.replacen('{', &format!("{{\"{extra}\":1,"), 1);
            prop_assert!(serde_json::from_str::<Fields>(&more).is_err());
        }
    }

    #[test]
    fn every_compact_number_is_a_target_or_a_fault(word: u32) {
        if let Ok(bits) = Bits::new(word) {
            let target = bits.target();
            prop_assert!(!target.is_zero());
            prop_assert_eq!(Bits::from_target(target).target(), target);
        }
    }

    #[test]
    fn compact_targets_cut_low_bits_only(limbs: [u64; 4], shift in 0usize..256) {
        let target = (U256::from_limbs(limbs) >> shift).max(U256::from(1));
        let cut = Bits::from_target(target).target();
        prop_assert!(cut <= target);
        prop_assert!(target - cut <= target >> 15);
        let exact: U512 = (U512::from(1) << 256usize) / (U512::from(target) + U512::from(1));
        prop_assert_eq!(U512::from(target::work(target)), exact);
        let share: U512 = (U512::from(target) << 6usize).min(U512::from(U256::MAX));
        prop_assert_eq!(U512::from(target::share_target(target, 6)), share);
    }

    #[test]
    fn the_schedule_never_leaves_its_range(
        word: u32, anchor_height in 0..LIMIT, above in 0u64..300, parent_time_secs: i64, tip_time: i64,
        spacing in 1u32..86_400, half_life in 1u32..31_536_000,
    ) {
        let easiest = Bits::new(0x2000_ffff).unwrap();
        if let Ok(bits) = Bits::new(word) {
            let anchor = Anchor { height: anchor_height, parent_time_secs, bits };
            let next = target::asert(anchor, anchor_height + above, tip_time, spacing, half_life, easiest);
            prop_assert!(next.target() <= easiest.target() && !next.target().is_zero());
            prop_assert_eq!(Bits::new(next.get()), Ok(next));
        }
    }

    #[test]
    fn a_later_head_is_never_harder(since in 0i64..100_000, later in 0i64..100_000) {
        let easiest = Bits::new(0x2000_ffff).unwrap();
        let anchor = Anchor { height: 1, parent_time_secs: 0, bits: Bits::new(0x1e00_ffff).unwrap() };
        let at = |time| target::asert(anchor, 40, time, 15, 1_800, easiest).target();
        prop_assert!(at(since + later) >= at(since));
    }

    /// SEC1 has a third form of 33 bytes, in which the key of an even point is another miner's name.
    #[test]
    fn a_key_has_one_compressed_form(secret in any::<[u8; 32]>(), prehash in any::<[u8; 32]>()) {
        let Some(secret) = SecretKey::from_bytes(&secret) else { return Ok(()) };
        let (key, sig) = (secret.public(), secret.sign(&prehash));
        prop_assert_eq!(keys::verify(&key, &prehash, &sig), Ok(()));
        for tag in (0..=255).filter(|tag| *tag != key.0[0]) {
            let mut other = key;
            other.0[0] = tag;
            prop_assert!(keys::verify(&other, &prehash, &sig).is_err());
            prop_assert!(keys::verify_lenient(&other.0, &prehash, &sig.0).is_err());
        }
    }

    #[test]
    fn garbage_is_no_signature(key: [u8; 32], tag in 0u8..8, sig in any::<[[u8; 32]; 2]>(), der in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut point = [tag; 33];
        point[1..].copy_from_slice(&key);
        let sig = Signature(sig.concat().try_into().unwrap());
        prop_assert!(keys::verify(&PublicKey(point), &[5; 32], &sig).is_err());
        prop_assert!(keys::verify_lenient(&point, &[5; 32], &der).is_err());
        prop_assert!(keys::verify_lenient(&der, &[5; 32], &sig.0).is_err());
    }
}
