//! What a fuzzer's bytes pick from: real receipts with real signatures on a network so easy that a processor makes hundreds in a blink.
//!
//! ```text
//!   genesis ── main, 150 heads ──┬── tip
//!       └ low branch (height 4)  └ high branch: leaves main near its top and outgrows it
//! ```
//!
//! On many heads stand true shares of three miners, invented roots, one unit with two roots, stamps of the past and of the future. Bytes alone
//! would never find a signature; so they choose among these, and have them changed and signed again.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tops_protocol::engine::Place;
use tops_protocol::keys::SecretKey;
use tops_protocol::network::Fields;
use tops_protocol::receipt::{Draft, KERNEL_V2};
use tops_protocol::verify::{ParentFacts, Semantic, Structural};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Height, Millis, NetworkSpec, Nonce, Receipt, Root, Signature, Text, U256};

/// When the chain begins.
pub const GENESIS_MS: u64 = 1_800_000_000_000;
/// Heads of the main chain: more than the least retention, so that pruning happens.
pub const MAIN: usize = 150;
/// Milliseconds between two heads.
pub const SPACING_MS: u64 = 4_000;
/// Computed roots that are remembered; more are computed anew.
const MEMO_MAX: usize = 4_096;

/// The receipts, and what it takes to make more.
pub struct Palette {
    /// The law's numbers.
    pub spec: NetworkSpec,
    /// Four miners: 0 to 2 are honest, 3 invents roots.
    pub keys: Vec<SecretKey>,
    /// The main chain, lowest first.
    pub main: Vec<Semantic>,
    /// Everything, the main chain first.
    pub all: Vec<Semantic>,
    weights: Weights,
    places: BTreeMap<Root, Place>,
    roots: RefCell<BTreeMap<Attempt, Root>>,
    nonce: u64,
}

impl Palette {
    /// Makes all receipts: the same ones every time.
    pub fn new() -> Self {
        let fields = Fields {
            m: 16,
            n: 256,
            k: 256,
            spacing_secs: 4,
            half_life_secs: 60,
            genesis_bits: 0x207f_ffff,
            easiest_bits: 0x207f_ffff,
            share_log2: 4,
            stale_window: 3,
            genesis_time_ms: GENESIS_MS,
        };
        let spec = NetworkSpec::new(fields).expect("numbers within the law's ranges");
        let mut palette = Self {
            keys: (1..=4).map(|tag| SecretKey::from_bytes(&[tag; 32]).expect("a scalar")).collect(),
            main: Vec::new(),
            all: Vec::new(),
            weights: Weights::new(spec.shape()),
            places: BTreeMap::from([(spec.genesis(), Place::genesis(&spec))]),
            roots: RefCell::default(),
            nonce: 0,
            spec,
        };
        let genesis = palette.spec.genesis();
        palette.main = palette.chain(genesis, MAIN);
        palette.all = palette.main.clone();
        let (low, high) = (palette.main[3].root(), palette.main[MAIN - 8].root());
        let branches = [palette.chain(low, 5), palette.chain(high, 14)];
        for head in branches.into_iter().flatten() {
            palette.all.push(head);
        }
        let on: Vec<Root> = palette.all.iter().map(Semantic::root).chain([genesis]).collect();
        for (at, head) in on.iter().enumerate().filter(|(at, _)| *at < 8 || *at > MAIN - 12) {
            for miner in 0..2 + at % 2 {
                let share = palette.share(*head, miner);
                palette.all.push(share);
            }
            let false_root = palette.invented(*head, 3, 0xf0);
            let false_head = palette.invented(*head, at % 4, 0);
            palette.all.extend([false_root, false_head]);
        }
        let tip = on[MAIN - 1];
        for (miner, ahead_ms) in [(0, 14_000), (1, 20_000), (2, 3_600_000), (1, 1 << 40)] {
            let stamp = palette.stamp(tip).plus(ahead_ms);
            let share = palette.search(tip, miner, stamp, |_| true);
            palette.all.push(share);
        }
        let old = palette.search(tip, 0, Millis(GENESIS_MS + 1), |_| true);
        palette.all.push(old);
        for at in [5, MAIN + 30] {
            let twin = palette.all[at].receipt().clone();
            let root = Root([0x70; 32]);
            let twin = palette.sign(Receipt { work_root: root, ..twin }).expect("a palette receipt keeps its form");
            palette.all.push(twin);
        }
        palette
    }

    /// What is keyed on a head of the palette must meet.
    pub fn facts(&self, head: &Root) -> Option<ParentFacts> {
        self.places.get(head).map(|place| place.facts(&self.spec, *head))
    }
    /// Cumulative work at a head.
    pub fn work(&self, head: &Root) -> U256 {
        self.places.get(head).map_or(U256::ZERO, |place| place.work)
    }
    /// Height of a head.
    pub fn height(&self, head: &Root) -> Height {
        self.places.get(head).map_or(Height(0), |place| place.height)
    }
    /// A time at which the main chain is as old as its height says.
    pub fn now(&self) -> Millis {
        Millis(GENESIS_MS + SPACING_MS * MAIN as u64)
    }
    fn stamp(&self, head: Root) -> Millis {
        let facts = self.facts(&head).expect("only known heads are built on");
        Millis(GENESIS_MS + SPACING_MS * (facts.height.0 + 1)).max(facts.median.plus(1))
    }

    /// The true root of any attempt.
    pub fn root(&self, attempt: &Attempt) -> Root {
        let mut roots = self.roots.borrow_mut();
        if let Some(root) = roots.get(attempt) {
            return *root;
        }
        let root = work::root(attempt, &self.weights);
        if roots.len() < MEMO_MAX {
            roots.insert(*attempt, root);
        }
        root
    }

    /// Signs with the key of the receipt's miner; `None` when that key is not here, or stages 1 and 2 refuse the receipt.
    pub fn sign(&self, receipt: Receipt) -> Option<Semantic> {
        let key = self.keys.iter().find(|key| key.public() == receipt.miner)?;
        let draft = Draft::new(receipt);
        let sig = key.sign(&draft.prehash());
        Structural::from_wire(&draft.with_signature(sig).to_wire(), &self.spec).ok()?.semantic().ok()
    }

    fn receipt(&self, attempt: Attempt, root: Root) -> Semantic {
        let receipt = Receipt {
            device_did: Text::cleaned("did:fuzz"),
            epoch_id: self.height(&attempt.prev_hash).0 + 1,
            prev_hash: attempt.prev_hash,
            nonce: attempt.nonce,
            work_root: root,
            shape: attempt.shape,
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: Text::cleaned("CPU"),
            network: self.spec.tag(),
            miner: attempt.miner,
            timestamp: attempt.timestamp,
            sig: Signature([0; 64]),
        };
        self.sign(receipt).expect("the palette signs what stages 1 and 2 take")
    }

    fn attempt(&mut self, prev_hash: Root, miner: usize, timestamp: Millis) -> Attempt {
        self.nonce += 1;
        let nonce = Nonce::new(self.nonce).expect("a small number");
        Attempt { prev_hash, miner: self.keys[miner].public(), nonce, timestamp, shape: self.spec.shape() }
    }

    fn search(&mut self, head: Root, miner: usize, stamp: Millis, wanted: impl Fn(Root) -> bool) -> Semantic {
        loop {
            let attempt = self.attempt(head, miner, stamp);
            let root = self.root(&attempt);
            if wanted(root) {
                return self.receipt(attempt, root);
            }
        }
    }

    fn chain(&mut self, from: Root, count: usize) -> Vec<Semantic> {
        let mut tip = from;
        let mut heads = Vec::new();
        for at in 0..count {
            let target = self.facts(&tip).expect("only known heads are built on").head_target;
            let stamp = self.stamp(tip);
            let head = self.search(tip, at % 3, stamp, |root| root.ticket() <= target);
            let place = self.places[&tip].child(&self.spec, stamp);
            tip = head.root();
            self.places.insert(tip, place);
            heads.push(head);
        }
        heads
    }

    fn share(&mut self, head: Root, miner: usize) -> Semantic {
        let facts = self.facts(&head).expect("only known heads are built on");
        let stamp = self.stamp(head);
        self.search(head, miner, stamp, |root| root.ticket() > facts.head_target && root.ticket() <= facts.share_target)
    }

    /// A root that nobody computed: a claimed share with a high first byte, a claimed head with zero.
    fn invented(&mut self, head: Root, miner: usize, first: u8) -> Semantic {
        let stamp = self.stamp(head);
        let attempt = self.attempt(head, miner, stamp);
        let mut root = *blake3::hash(&self.nonce.to_le_bytes()).as_bytes();
        root[0] = first;
        self.receipt(attempt, Root(root))
    }
}

impl Default for Palette {
    fn default() -> Self {
        Self::new()
    }
}
