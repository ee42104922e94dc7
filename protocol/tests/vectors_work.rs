//! The reference against the independent model's vectors (spec §1, §2) and the original worker's published roots.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use serde_json::Value;
use tops_protocol::types::parse_hex;
use tops_protocol::work::v1::{self, ShapeV1, Variant};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape};

fn vectors(name: &str) -> Vec<Value> {
    let path = format!("{}/../tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(v: &Value, key: &str) -> u64 {
    v[key].as_u64().unwrap()
}

fn size(v: &Value, key: &str) -> u32 {
    u32::try_from(number(v, key)).unwrap()
}

fn hex<const N: usize>(v: &Value, key: &str) -> [u8; N] {
    parse_hex(v[key].as_str().unwrap()).unwrap()
}

fn row(v: &Value, key: &str) -> Vec<i8> {
    v[key].as_array().unwrap().iter().map(|x| i8::try_from(x.as_i64().unwrap()).unwrap()).collect()
}

#[test]
fn v2_with_every_intermediate_value() {
    let vectors = vectors("work_v2.json");
    assert!(!vectors.is_empty());
    for v in &vectors {
        let shape = Shape::new(size(v, "m"), size(v, "n"), size(v, "k")).unwrap();
        let (n, k) = (shape.n() as usize, shape.k() as usize);
        assert_eq!(shape.shifts().map(u64::from), [v["shifts"][0].as_u64().unwrap(), v["shifts"][1].as_u64().unwrap()]);
        let attempt = Attempt {
            prev_hash: Root(hex(v, "prev_hash")),
            miner: PublicKey(hex(v, "miner")),
            nonce: Nonce::new(number(v, "nonce")).unwrap(),
            timestamp: Millis(number(v, "timestamp_ms")),
            shape,
        };
        let weights = Weights::new(shape);
        assert!(weights.fit(shape));
        assert_eq!(weights.w1()[..16], row(v, "w1_row0"));
        assert_eq!(weights.w2()[n * n - 16..], row(v, "w2_last_row"));
        let trace = work::attempt(&attempt, &weights);
        assert_eq!(trace.seed.0, hex(v, "attempt_seed"));
        assert_eq!(trace.a[..16], row(v, "a_row0"));
        assert_eq!(trace.a[shape.m() as usize * k - 16..], row(v, "a_last_row"));
        assert_eq!(trace.y1[..16], row(v, "y1_row0"));
        assert_eq!(trace.y2[..16], row(v, "y2_row0"));
        assert_eq!(trace.digest, hex(v, "output_digest"));
        assert_eq!(trace.root.0, hex(v, "work_root"));
        assert_eq!(work::unit_id(&attempt), trace.seed);
        assert_eq!(work::root(&attempt, &weights), trace.root);
    }
}

#[test]
fn v1_and_v1_mixed() {
    let vectors = vectors("work_v1.json");
    assert!(!vectors.is_empty());
    for v in &vectors {
        let shape = ShapeV1::new(size(v, "m"), size(v, "n"), size(v, "k")).unwrap();
        let variant = match v["work"].as_str().unwrap() {
            "v1" => Variant::Plain,
            "v1-mixed" => Variant::Mixed,
            other => panic!("unknown work {other}"),
        };
        let root = v1::root(&Root(hex(v, "prev_hash")), size(v, "nonce"), shape, variant);
        assert_eq!(root.0, hex(v, "work_root"), "{v}");
    }
}

#[test]
fn v1_mixed_roots_that_the_original_published() {
    let shape = ShapeV1::new(1536, 1536, 1536).unwrap();
    let published = [
        "abcd4ac6a0451fd537a35fa9d9f94e9d570bc05794c7292ef86ce747f7bd1226",
        "1d4faaec1d275c492945c6f1fa32c6c2d8c14d8c370ff748c9cf8a3dca0a233e",
        "1fccb056315ec5f658b8cf68f4b52530a110650d97ff15f405d44d69c3639ccf",
    ];
    for (nonce, root) in (1..).zip(published) {
        assert_eq!(v1::root(&Root([0xaa; 32]), nonce, shape, Variant::Mixed).to_hex(), root);
    }
}

#[test]
fn clamping_in_place_replaces_the_mix() {
    let seed = v1::seed16(&Root([7; 32]), 9);
    let (n, k) = (48, 256);
    let shape = ShapeV1::new(32, n, k).unwrap();
    let (mix, weights, a) = (v1::Mix::new(&seed, k), v1::WeightsV1::new(shape), v1::activations(&seed, shape));
    let (n, k) = (n as usize, k as usize);
    let clamped_a: Vec<i8> = a.iter().enumerate().map(|(i, &x)| mix.clamped(i % k, x)).collect();
    let clamped_w1: Vec<i8> = weights.w1().iter().enumerate().map(|(i, &w)| mix.clamped(i / n, w)).collect();
    let mixed_a: Vec<i8> = a.chunks_exact(k).flat_map(|row| mix.from.iter().map(|&c| mix.apply(c as usize, row[c as usize]))).collect();
    let mixed_w1: Vec<i8> =
        mix.from.iter().flat_map(|&c| (0..n).map(move |j| (c as usize, j))).map(|(c, j)| mix.apply(c, weights.w1()[c * n + j])).collect();
    assert!(a.contains(&-128) && weights.w1().contains(&-128));
    assert_eq!(v1::layer(&clamped_a, &clamped_w1, n, k), v1::layer(&mixed_a, &mixed_w1, n, k));
}
