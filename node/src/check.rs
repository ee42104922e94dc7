//! Is this receipt true? Schema, signature, root, cheapest first: what the command `verify` and `POST /verify` both ask (spec §5).
//!
//! ```text
//! text ──codec──▶ receipt ──signature──▶ ──recompute on a device──▶ root equal? ──no──▶ repeat on the reference ▶ false
//! ```
//!
//! Which head it builds on is the chain's question, not asked here. A device's mismatch counts only when the reference repeats it; a
//! device that fails is an error and never a verdict.

use std::fmt;

use tops_compute::backend::{Backend, DeviceFault};
use tops_protocol::codec::{self, AnyReceipt};
use tops_protocol::receipt::{KERNEL_V1, ReceiptV1, prehash};
use tops_protocol::verify::Structural;
use tops_protocol::work::v1::{self, AttemptV1, ShapeV1, Variant};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Receipt, ReceiptId, Root, keys};

/// A stage of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The text is a receipt.
    Schema,
    /// The miner signed it.
    Signature,
    /// Its root is the attempt's.
    Root,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Schema => "schema",
            Self::Signature => "signature",
            Self::Root => "root",
        })
    }
}

/// What became of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It holds.
    Good,
    /// It does not.
    Bad,
    /// There was no key to check it with.
    Unchecked,
    /// An earlier stage failed.
    NotReached,
}

impl Finding {
    /// `good`, `bad`, …
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unchecked => "unchecked",
            Self::NotReached => "not reached",
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The receipt, when the schema holds.
    pub receipt: Option<AnyReceipt>,
    /// Its id, when the schema holds.
    pub id: Option<ReceiptId>,
    /// The signature.
    pub signature: Finding,
    /// The root.
    pub root: Finding,
    /// For a good v1 root: which build made it.
    pub variant: Option<Variant>,
    /// The first stage that does not hold, and why.
    pub failed: Option<(Stage, String)>,
}

impl Report {
    /// Whether everything was checked and holds.
    pub fn ok(&self) -> bool {
        self.failed.is_none()
    }

    fn of(receipt: AnyReceipt, id: ReceiptId) -> Self {
        Self {
            receipt: Some(receipt),
            id: Some(id),
            signature: Finding::NotReached,
            root: Finding::NotReached,
            variant: None,
            failed: None,
        }
    }

    /// A text that is no receipt.
    pub fn no_receipt(why: String) -> Self {
        Self {
            receipt: None,
            id: None,
            signature: Finding::NotReached,
            root: Finding::NotReached,
            variant: None,
            failed: Some((Stage::Schema, why)),
        }
    }

    fn fail(mut self, stage: Stage, finding: Finding, why: impl Into<String>) -> Self {
        match stage {
            Stage::Schema => {}
            Stage::Signature => self.signature = finding,
            Stage::Root => self.root = finding,
        }
        self.failed.get_or_insert((stage, why.into()));
        self
    }
}

/// Recomputes roots.
pub trait Recompute {
    /// The root of a v2 attempt.
    fn v2(&self, attempt: &Attempt) -> Result<Root, DeviceFault>;
    /// The root of a v1 attempt.
    fn v1(&self, attempt: &AttemptV1) -> Result<Root, DeviceFault>;
}

/// A device as the first path and the reference as the second, which alone calls a root false.
pub struct Recomputed<'a>(pub &'a dyn Backend);

impl Recompute for Recomputed<'_> {
    fn v2(&self, attempt: &Attempt) -> Result<Root, DeviceFault> {
        first(self.0.roots(std::slice::from_ref(attempt))?)
    }
    fn v1(&self, attempt: &AttemptV1) -> Result<Root, DeviceFault> {
        first(self.0.v1_roots(std::slice::from_ref(attempt))?)
    }
}

fn first(roots: Vec<Root>) -> Result<Root, DeviceFault> {
    roots.into_iter().next().ok_or_else(|| DeviceFault::WrongAnswer { detail: "no root for an attempt".into() })
}

/// Checks a receipt in text form. `key`: 33 or 65 bytes; a v1 receipt carries none, a v2 receipt must then be of this one.
pub fn check(text: &[u8], key: Option<&[u8]>, compute: &dyn Recompute) -> Result<Report, DeviceFault> {
    match codec::receipt_from_text(text) {
        Ok(AnyReceipt::V2(receipt)) => check_v2(receipt, key, compute),
        Ok(AnyReceipt::V1(receipt)) => {
            let id = receipt.id();
            check_v1(receipt, id, key, compute)
        }
        Err(fault) => Ok(Report::no_receipt(fault.to_string())),
    }
}

/// Checks a v2 receipt.
pub fn check_v2(receipt: Receipt, key: Option<&[u8]>, compute: &dyn Recompute) -> Result<Report, DeviceFault> {
    let structural = match Structural::of_any_network(receipt.clone()) {
        Ok(structural) => structural,
        Err(fault) => return Ok(Report::no_receipt(fault.to_string())),
    };
    let mut report = Report::of(AnyReceipt::V2(receipt.clone()), receipt.id());
    let semantic = match structural.semantic() {
        Ok(semantic) => semantic,
        Err(fault) => return Ok(report.fail(Stage::Signature, Finding::Bad, fault.to_string())),
    };
    if key.is_some_and(|key| !same_key(key, &receipt.miner.0)) {
        return Ok(report.fail(Stage::Signature, Finding::Bad, "it is signed by another key than the one asked for"));
    }
    report.signature = Finding::Good;
    let attempt = semantic.attempt();
    let claimed = semantic.root();
    if compute.v2(&attempt)? == claimed {
        report.root = Finding::Good;
        return Ok(report);
    }
    let reference = work::root(&attempt, &Weights::new(attempt.shape));
    if reference == claimed {
        return Err(DeviceFault::WrongAnswer { detail: "the reference confirms a root that the device denies".into() });
    }
    Ok(report.fail(Stage::Root, Finding::Bad, format!("the attempt's root is {reference}, the receipt claims {claimed}")))
}

/// Checks a v1 receipt whose signature covers `id`.
pub fn check_v1(receipt: ReceiptV1, id: ReceiptId, key: Option<&[u8]>, compute: &dyn Recompute) -> Result<Report, DeviceFault> {
    if receipt.kernel_ver.as_str() != KERNEL_V1 {
        return Ok(Report::no_receipt(format!("kernel_ver of a receipt without a miner is {KERNEL_V1}")));
    }
    let Some(shape) = ShapeV1::new(receipt.m, receipt.n, receipt.k) else {
        return Ok(Report::no_receipt("the sizes must be in 1..=8192".into()));
    };
    let mut report = Report::of(AnyReceipt::V1(receipt.clone()), id);
    match key.map(|key| keys::verify_lenient(key, &prehash(&id), &receipt.sig)) {
        Some(Ok(())) => report.signature = Finding::Good,
        Some(Err(fault)) => return Ok(report.fail(Stage::Signature, Finding::Bad, fault.to_string())),
        None => {
            let why = "a v1 receipt carries no key: give the signer's with --pubkey or VERIFY_PUBKEY";
            report = report.fail(Stage::Signature, Finding::Unchecked, why);
        }
    }
    let claimed = receipt.work_root;
    for variant in [Variant::Plain, Variant::Mixed] {
        if compute.v1(&AttemptV1 { prev_hash: receipt.prev_hash, nonce: receipt.nonce, shape, variant })? == claimed {
            report.root = Finding::Good;
            report.variant = Some(variant);
            return Ok(report);
        }
    }
    let reference = [Variant::Plain, Variant::Mixed].map(|variant| v1::root(&receipt.prev_hash, receipt.nonce, shape, variant));
    if reference.contains(&claimed) {
        return Err(DeviceFault::WrongAnswer { detail: "the reference confirms a root that the device denies".into() });
    }
    Ok(report.fail(
        Stage::Root,
        Finding::Bad,
        format!("the attempt's root is {} (v1) or {} (v1-mixed), the receipt claims {claimed}", reference[0], reference[1]),
    ))
}

/// Whether a key of 33 or 65 bytes is this compressed one.
fn same_key(key: &[u8], compressed: &[u8; 33]) -> bool {
    k256::ecdsa::VerifyingKey::from_sec1_bytes(key).is_ok_and(|key| key.to_sec1_point(true).as_bytes() == compressed)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    /// The reference alone, as both paths.
    pub(crate) struct Reference;

    impl Recompute for Reference {
        fn v2(&self, attempt: &Attempt) -> Result<Root, DeviceFault> {
            Ok(work::root(attempt, &Weights::new(attempt.shape)))
        }
        fn v1(&self, a: &AttemptV1) -> Result<Root, DeviceFault> {
            Ok(v1::root(&a.prev_hash, a.nonce, a.shape, a.variant))
        }
    }

    /// The published receipts: text and public key.
    pub(crate) fn vectors() -> Vec<(String, Vec<u8>)> {
        let all: Vec<Value> = serde_json::from_str(include_str!("../../tests/vectors/receipts.json")).unwrap();
        all.iter()
            .map(|v| {
                let signed =
                    v["signing_text"].as_str().unwrap().replace("\"sig_hex\":\"\"", &format!("\"sig_hex\":{}", v["receipt"]["sig_hex"]));
                (signed, hex::decode(v["public_key"].as_str().unwrap()).unwrap())
            })
            .collect()
    }

    #[test]
    fn published_receipts_are_true() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 4);
        for (text, key) in &vectors {
            let report = check(text.as_bytes(), Some(key), &Reference).unwrap();
            assert!(report.ok(), "{report:?}");
            assert_eq!((report.signature, report.root), (Finding::Good, Finding::Good));
        }
    }

    #[test]
    fn a_v1_receipt_without_a_key_is_a_no_that_still_looks_at_the_root() {
        let (text, _) = vectors().into_iter().find(|(text, _)| !text.contains("miner_hex")).unwrap();
        let report = check(text.as_bytes(), None, &Reference).unwrap();
        assert!(!report.ok());
        assert_eq!((report.signature, report.root), (Finding::Unchecked, Finding::Good));
        assert!(report.variant.is_some());
        assert_eq!(report.failed.unwrap().0, Stage::Signature);
    }

    #[test]
    fn every_changed_byte_fails_at_a_stage() {
        for (text, key) in vectors() {
            for at in 0..text.len() {
                for with in [1u8, 2, 0x20, 0x80, 0xff] {
                    let mut changed = text.clone().into_bytes();
                    changed[at] ^= with;
                    let report = check(&changed, Some(&key), &Reference).unwrap();
                    assert!(report.failed.is_some(), "byte {at} ^ {with:#x} of {text}");
                }
                for with in *b" 0\\\"}a-9." {
                    let mut changed = text.clone().into_bytes();
                    if changed[at] == with {
                        continue;
                    }
                    changed[at] = with;
                    assert!(!check(&changed, Some(&key), &Reference).unwrap().ok(), "byte {at} = {with} of {text}");
                }
            }
        }
    }

    #[test]
    fn a_resigned_false_root_fails_at_the_root() {
        let all: Vec<Value> = serde_json::from_str(include_str!("../../tests/vectors/receipts.json")).unwrap();
        let secret = crate::keys::parse(all[0]["secret_key"].as_str().unwrap()).unwrap();
        let Ok(AnyReceipt::V2(mut receipt)) = codec::receipt_from_text(vectors()[0].0.as_bytes()) else { panic!("the first vector is v2") };
        receipt.work_root.0[31] ^= 1;
        let draft = tops_protocol::Draft::new(receipt);
        let sig = secret.sign(&draft.prehash());
        let text = draft.with_signature(sig).to_text();
        let report = check(text.as_bytes(), None, &Reference).unwrap();
        assert_eq!((report.signature, report.root), (Finding::Good, Finding::Bad));
        let (stage, why) = report.failed.unwrap();
        assert_eq!(stage, Stage::Root);
        assert!(why.contains("the receipt claims"), "{why}");
    }

    #[test]
    fn another_key_than_the_one_asked_for_is_a_no() {
        let vectors = vectors();
        let report = check(vectors[0].0.as_bytes(), Some(&vectors[1].1), &Reference).unwrap();
        assert_eq!(report.signature, Finding::Bad);
        assert!(!report.ok());
    }
}
