//! The law against the independent model's vectors: receipts and their exact signatures, targets, networks, the head schedule
//! (spec §3, §4), and Bitcoin Cash's published ASERT runs.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use serde_json::Value;
use tops_protocol::codec::{self, AnyReceipt};
use tops_protocol::error::SemanticFault;
use tops_protocol::keys::{self, SecretKey};
use tops_protocol::network::{self, Fields};
use tops_protocol::receipt::{Draft, prehash};
use tops_protocol::target::{self, Anchor, Bits, BitsFault};
use tops_protocol::types::parse_hex;
use tops_protocol::verify::Structural;
use tops_protocol::work::{self, Weights, v1};
use tops_protocol::{NetworkSpec, PublicKey, ReceiptId, U256};

fn vector_file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn vectors(name: &str) -> Vec<Value> {
    let list: Vec<Value> = serde_json::from_str(&vector_file(name)).unwrap();
    assert!(!list.is_empty(), "{name} is empty");
    list
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_else(|| panic!("{key} in {v}"))
}

fn hex<const N: usize>(v: &Value, key: &str) -> [u8; N] {
    parse_hex(text(v, key)).unwrap()
}

fn hex_number(text: &str) -> u32 {
    u32::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

fn number(v: &Value, key: &str) -> u64 {
    v[key].as_u64().unwrap_or_else(|| panic!("{key} in {v}"))
}

fn small(v: &Value, key: &str) -> u32 {
    u32::try_from(number(v, key)).unwrap()
}

/// The `receipt` field as compact JSON in signing order. Reading it into a `Value` sorts its keys, so it is made from the signing text.
fn receipt_text(v: &Value) -> String {
    let unsigned = text(v, "signing_text").strip_suffix("\"\"}").expect("an empty signature ends the signing text");
    let whole = format!("{unsigned}\"{}\"}}", text(&v["receipt"], "sig_hex"));
    assert_eq!(serde_json::from_str::<Value>(&whole).unwrap(), v["receipt"]);
    whole
}

#[test]
fn receipts_have_the_published_bytes_ids_and_signatures() {
    let mut v2 = 0;
    for v in vectors("receipts.json").iter().filter(|v| v["wire"].is_string()) {
        v2 += 1;
        let wire = hex::decode(text(v, "wire")).unwrap();
        let receipt = codec::receipt_from_wire(&wire).unwrap();
        assert_eq!(receipt.to_wire(), wire);
        assert_eq!(receipt.to_text(), receipt_text(v));
        assert_eq!(codec::receipt_from_text(receipt_text(v).as_bytes()), Ok(AnyReceipt::V2(receipt.clone())));
        assert_eq!(receipt.signing_text(), text(v, "signing_text"));
        assert_eq!(receipt.unit().0, hex(v, "unit"));
        assert_eq!(receipt.id(), ReceiptId(hex(v, "id")));
        assert_eq!(prehash(&receipt.id()), hex::<32>(v, "prehash"));

        let secret = SecretKey::from_bytes(&hex(v, "secret_key")).unwrap();
        assert_eq!(secret.public(), PublicKey(hex(v, "public_key")));
        assert_eq!(secret.public(), receipt.miner);
        // RFC 6979: signing anew gives the same 64 bytes.
        let draft = Draft::new(receipt.clone());
        let sig = secret.sign(&draft.prehash());
        assert_eq!(sig, receipt.sig);
        assert_eq!(draft.with_signature(sig), receipt);

        Structural::of_any_network(receipt.clone()).unwrap().semantic().unwrap();
        assert_eq!(work::root(&receipt.attempt(), &Weights::new(receipt.shape)), receipt.work_root);
    }
    assert_eq!(v2, 3);
}

#[test]
fn the_v1_receipt_has_the_published_text_id_and_signature() {
    let list = vectors("receipts.json");
    let ones: Vec<_> = list.iter().filter(|v| !v["wire"].is_string()).collect();
    assert_eq!(ones.len(), 1);
    for v in ones {
        let AnyReceipt::V1(receipt) = codec::receipt_from_text(receipt_text(v).as_bytes()).unwrap() else { panic!("read as v2") };
        assert_eq!(receipt.to_text(), receipt_text(v));
        assert_eq!(receipt.id(), ReceiptId(hex(v, "id")));
        assert_eq!(prehash(&receipt.id()), hex::<32>(v, "prehash"));
        let secret = SecretKey::from_bytes(&hex(v, "secret_key")).unwrap();
        assert_eq!(secret.sign(&hex(v, "prehash")).0.to_vec(), receipt.sig);
        let key = secret.public();
        keys::verify_lenient(&key.0, &hex(v, "prehash"), &receipt.sig).unwrap();
        let mut other = receipt.sig.clone();
        other[40] ^= 1;
        assert_eq!(keys::verify_lenient(&key.0, &hex(v, "prehash"), &other), Err(SemanticFault::Mismatch));
        let shape = v1::ShapeV1::new(receipt.m, receipt.n, receipt.k).unwrap();
        let roots = [v1::Variant::Plain, v1::Variant::Mixed].map(|variant| v1::root(&receipt.prev_hash, receipt.nonce, shape, variant));
        assert!(roots.contains(&receipt.work_root));
    }
}

#[test]
fn targets() {
    for v in vectors("targets.json") {
        let bits = Bits::new(hex_number(text(&v, "bits"))).unwrap();
        assert_eq!(bits.target(), U256::from_be_bytes(hex::<32>(&v, "target")), "{v}");
        assert_eq!(target::work(bits.target()).to_string(), text(&v, "work"), "{v}");
        assert_eq!(Bits::from_target(bits.target()), bits, "{v}");
    }
}

#[test]
fn compact_targets_that_are_none() {
    for bits in [0, 0x0000_0001, 0x0100_0000, 0x0080_0000, 0x1d00_0000, 0x2000_0000] {
        assert_eq!(Bits::new(bits), Err(BitsFault::Zero { bits }), "{bits:#x}");
    }
    for bits in [0x0180_1000, 0x1d80_ffff, 0x2080_0001, 0xff80_0001] {
        let fault = Bits::new(bits).unwrap_err();
        assert!(matches!(fault, BitsFault::Negative { .. } | BitsFault::Zero { .. }), "{bits:#x}: {fault}");
    }
    assert_eq!(Bits::new(0x1d80_ffff), Err(BitsFault::Negative { bits: 0x1d80_ffff }));
    for bits in [0x2101_0000, 0x2200_0100, 0x2300_0001, 0xff12_3456] {
        assert_eq!(Bits::new(bits), Err(BitsFault::Overflow { bits }), "{bits:#x}");
    }
    // The largest that fit.
    for bits in [0x207f_ffff, 0x2100_ffff, 0x2200_00ff] {
        assert_eq!(Bits::new(bits).unwrap().target() >> 248, U256::from(if bits == 0x207f_ffff { 0x7f } else { 0xff }));
    }
}

fn fields(v: &Value) -> Fields {
    Fields {
        m: small(v, "m"),
        n: small(v, "n"),
        k: small(v, "k"),
        spacing_secs: small(v, "spacing_secs"),
        half_life_secs: small(v, "half_life_secs"),
        genesis_bits: small(v, "genesis_bits"),
        easiest_bits: small(v, "easiest_bits"),
        share_log2: small(v, "share_log2"),
        stale_window: small(v, "stale_window"),
        genesis_time_ms: number(v, "genesis_time_ms"),
    }
}

#[test]
fn networks() {
    let list = vectors("networks.json");
    let networks: Vec<_> = list.iter().filter(|v| v["cbor"].is_string()).collect();
    assert_eq!(networks.len(), 2);
    for v in &networks {
        assert_eq!(hex::encode(network::preimage(&fields(v))), text(v, "cbor"));
        let spec = NetworkSpec::new(fields(v)).unwrap();
        assert_eq!(spec.id().to_hex(), text(v, "network_id"));
        assert_eq!(spec.tag().to_hex(), text(v, "network_hex"));
        assert_eq!(spec.genesis().to_hex(), text(v, "genesis"));
    }
    assert_eq!(NetworkSpec::main().id().to_hex(), text(networks[0], "network_id"));
    assert_eq!(NetworkSpec::dev().id().to_hex(), text(networks[1], "network_id"));
}

#[test]
fn the_schedule_of_heads() {
    let spec = NetworkSpec::main();
    let list = vectors("networks.json");
    let chains: Vec<_> = list.iter().filter(|v| v["timestamps_ms"].is_array()).collect();
    assert_eq!(chains.len(), 2);
    for chain in chains {
        // e(H): monotone schedule times in seconds.
        let mut times: Vec<i64> = Vec::new();
        for stamp in chain["timestamps_ms"].as_array().unwrap() {
            let secs = i64::try_from(stamp.as_u64().unwrap() / 1_000).unwrap();
            times.push(times.last().map_or(secs, |&last| last.max(secs)));
        }
        let heights = chain["heights"].as_array().unwrap();
        let last = heights.iter().map(|h| h[0].as_u64().unwrap()).max().unwrap();
        // bits[H]: what head H must meet; 0 is genesis, which meets nothing.
        let mut bits = vec![spec.genesis_bits()];
        for height in 1..=last {
            let at = usize::try_from(target::anchor_height(height)).unwrap();
            let anchor_bits = if height == 1 { spec.genesis_bits() } else { bits[at] };
            let parent_time_secs = if at == 1 { times[1] - i64::from(spec.spacing_secs()) } else { times[at - 1] };
            let anchor = Anchor { height: at as u64, parent_time_secs, bits: anchor_bits };
            bits.push(target::next_bits(&spec, height, anchor, times[usize::try_from(height).unwrap() - 1]));
        }
        assert!(heights.len() > 3);
        for h in heights {
            let (height, expected) = (h[0].as_u64().unwrap(), hex_number(h[1].as_str().unwrap()));
            let bits = bits[usize::try_from(height).unwrap()];
            assert_eq!(bits.get(), expected, "height {height} of {}", text(chain, "name"));
            let share = target::share_target(bits.target(), spec.share_log2());
            assert_eq!(share, U256::from_be_bytes(parse_hex::<32>(h[2].as_str().unwrap()).unwrap()), "height {height}");
        }
    }
}

#[test]
fn the_published_asert_runs() {
    let easiest = Bits::new(0x1d00_ffff).unwrap();
    for run in 1..=12 {
        let file = vector_file(&format!("asert/run{run:02}"));
        let head = |key: &str| -> &str {
            file.lines()
                .find_map(|l| l.strip_prefix("##")?.trim().strip_prefix(key)?.trim().strip_prefix(':'))
                .unwrap_or_else(|| panic!("{key} in run {run}"))
                .trim()
        };
        let anchor = Anchor {
            height: head("anchor height").parse().unwrap(),
            parent_time_secs: head("anchor parent time").parse().unwrap(),
            bits: Bits::new(hex_number(head("anchor nBits"))).unwrap(),
        };
        let lines: Vec<_> = file.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).collect();
        assert_eq!(lines.len(), head("iterations").parse::<usize>().unwrap(), "run {run}");
        for line in lines {
            let mut words = line.split_whitespace().skip(1);
            let mut word = || words.next().unwrap();
            let (height, time, bits) = (word().parse().unwrap(), word().parse().unwrap(), hex_number(word()));
            assert_eq!(target::asert(anchor, height, time, 600, 172_800, easiest).get(), bits, "run {run}: {line}");
        }
    }
}
