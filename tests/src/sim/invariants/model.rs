//! The chain once more, written from the text of the law and not from the engine: places, targets, and the best tip.

use std::collections::BTreeMap;

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::Snapshot;
use tops_protocol::target::{Anchor, anchor_height, next_bits, share_target, work};
use tops_protocol::{Height, NetworkSpec, Root, U256};

/// A head as the law places it.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its parent; genesis is its own.
    pub parent: Root,
    /// Its height.
    pub height: u64,
    /// Cumulative work.
    pub work: U256,
    /// What the next head must meet.
    pub head_target: U256,
    /// What a share on it must meet.
    pub share_target: U256,
    /// Schedule times of all heights up to its own, seconds.
    times: Vec<i64>,
    /// Bits of all heights up to the next one; that of genesis is unused.
    bits: Vec<u32>,
}

/// All heads of a snapshot.
#[derive(Debug)]
pub struct Model {
    /// By root, genesis included.
    pub heads: BTreeMap<Root, Placed>,
    /// The main chain by the snapshot, genesis first.
    pub main: Vec<Root>,
}

impl Model {
    /// Places every head of the snapshot.
    ///
    /// # Panics
    /// When a head has no parent, or does not meet its target.
    pub fn new(spec: &NetworkSpec, snapshot: &Snapshot) -> Self {
        let begin = i64::try_from(spec.genesis_time().0 / 1_000).unwrap_or(i64::MAX);
        let bits = spec.genesis_bits();
        let genesis = Placed {
            parent: spec.genesis(),
            height: 0,
            work: U256::ZERO,
            head_target: bits.target(),
            share_target: share_target(bits.target(), spec.share_log2()),
            times: vec![begin],
            bits: vec![0, bits.get()],
        };
        let mut heads = BTreeMap::from([(spec.genesis(), genesis)]);
        let mut rows: Vec<_> = snapshot.heads.iter().collect();
        rows.sort_by_key(|row| row.height);
        for row in rows {
            let receipt = match receipt_from_wire(&row.wire) {
                Ok(receipt) => receipt,
                Err(fault) => panic!("head {}: {fault}", row.root),
            };
            let Some(parent) = heads.get(&receipt.prev_hash) else { panic!("head {} has no parent", row.root) };
            assert_eq!((row.root, row.height), (receipt.work_root, Height(parent.height + 1)));
            assert!(row.root.ticket() <= parent.head_target, "head {} misses its target", row.root);
            let placed = Self::place(spec, parent, receipt.prev_hash, receipt.timestamp.0);
            heads.insert(row.root, placed);
        }
        let main = std::iter::once(spec.genesis()).chain(snapshot.main.iter().copied()).collect();
        Self { heads, main }
    }

    fn place(spec: &NetworkSpec, parent: &Placed, parent_root: Root, timestamp_ms: u64) -> Placed {
        let height = parent.height + 1;
        let secs = i64::try_from(timestamp_ms / 1_000).unwrap_or(i64::MAX);
        let mut times = parent.times.clone();
        times.push(secs.max(*times.last().unwrap_or(&secs)));
        let at = usize::try_from(anchor_height(height + 1)).unwrap_or(usize::MAX);
        let parent_time_secs = if at == 1 { times[1] - i64::from(spec.spacing_secs()) } else { times[at - 1] };
        let anchor_bits = match tops_protocol::target::Bits::new(parent.bits[at]) {
            Ok(bits) => bits,
            Err(fault) => panic!("{fault}"),
        };
        let tip_time = times[usize::try_from(height).unwrap_or(usize::MAX)];
        let next = next_bits(spec, height + 1, Anchor { height: at as u64, parent_time_secs, bits: anchor_bits }, tip_time);
        let mut bits = parent.bits.clone();
        bits.push(next.get());
        Placed {
            parent: parent_root,
            height,
            work: parent.work + work(parent.head_target),
            head_target: next.target(),
            share_target: share_target(next.target(), spec.share_log2()),
            times,
            bits,
        }
    }

    /// The best tip: most work, then the smaller root.
    pub fn best(&self) -> Root {
        let best = self.heads.iter().max_by(|a, b| a.1.work.cmp(&b.1.work).then(b.0.cmp(a.0)));
        match best {
            Some((root, _)) => *root,
            None => unreachable!("genesis is always there"),
        }
    }

    /// Whether a head is on the main chain.
    pub fn is_main(&self, root: &Root) -> bool {
        self.heads.get(root).is_some_and(|p| usize::try_from(p.height).ok().and_then(|h| self.main.get(h)) == Some(root))
    }

    /// Whether shares keyed on a head earn: it or its parent is on the main chain.
    pub fn earns(&self, root: &Root) -> bool {
        self.heads.get(root).is_some_and(|p| self.is_main(root) || self.is_main(&p.parent))
    }
}

/// Everything a node's store holds.
///
/// # Panics
/// When it cannot be read.
pub fn snapshot(world: &super::World, node: usize) -> Snapshot {
    match world.nodes[node].store().snapshot(Height(0)) {
        Ok(snapshot) => snapshot,
        Err(fault) => panic!("node {node}: {fault}"),
    }
}

/// Nodes that are up and do not cheat.
pub fn honest(world: &super::World) -> Vec<usize> {
    (0..world.nodes.len()).filter(|&i| world.nodes[i].engine.is_some() && world.nodes[i].cheat.is_none()).collect()
}
