//! The tree of heads and the choice of the best one (spec §4).
//!
//! Knows roots, work and times; never shares, peers or credit. A head enters with the receipt that won it, after its audit (or,
//! on a light node at first sync, as claimed: such a head weighs, and is told to nobody). Heads far below the tip leave memory; the
//! main chain's roots stay.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::codec;
use crate::network::NetworkSpec;
use crate::target::{self, Anchor, Bits};
use crate::types::{Height, Millis, Root, U256, UnitId};
use crate::verify::{Contextual, ParentFacts, Semantic};

/// Times that the median looks at.
const MEDIAN_SPAN: usize = 11;

/// Where a head is: everything that its children need, so that no ancestor has to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its height.
    pub height: Height,
    /// Work of the chain up to it.
    pub work: U256,
    /// Its own compact target.
    bits: Bits,
    /// `e(height)`, seconds.
    schedule_secs: i64,
    /// The anchor of its children.
    anchor: Anchor,
    /// Raw timestamps of the last heads up to it, oldest first, at most eleven.
    times: Vec<u64>,
}

type PlaceForm = (u64, serde_bytes::ByteArray<32>, u32, i64, (u64, i64, u32), Vec<u64>);

impl Place {
    /// Genesis: height 0, no work, the time that the network says.
    pub fn genesis(spec: &NetworkSpec) -> Self {
        let time = spec.genesis_time();
        let schedule_secs = (time.0 / 1_000) as i64;
        let bits = spec.genesis_bits();
        // Never used: height 1 has the genesis bits, and its children anchor on it.
        let anchor = Anchor { height: 1, parent_time_secs: schedule_secs, bits };
        Self { height: Height(0), work: U256::ZERO, bits, schedule_secs, anchor, times: alloc::vec![time.0] }
    }

    /// The place of a child with this timestamp. Its target follows from this place alone.
    pub fn child(&self, spec: &NetworkSpec, timestamp: Millis) -> Self {
        let height = self.height.next();
        let bits = self.next_bits(spec);
        let schedule_secs = self.schedule_secs.max((timestamp.0 / 1_000) as i64);
        let anchor = if (height.0 - 1).is_multiple_of(target::ANCHOR_INTERVAL) {
            let parent_time_secs = if height.0 == 1 { schedule_secs - i64::from(spec.spacing_secs()) } else { self.schedule_secs };
            Anchor { height: height.0, parent_time_secs, bits }
        } else {
            self.anchor
        };
        let skip = (self.times.len() + 1).saturating_sub(MEDIAN_SPAN);
        let times = self.times.iter().copied().skip(skip).chain([timestamp.0]).collect();
        Self { height, work: self.work.saturating_add(target::work(bits.target())), bits, schedule_secs, anchor, times }
    }

    /// The head's own timestamp.
    pub fn time(&self) -> Millis {
        Millis(self.times.last().copied().unwrap_or_default())
    }

    /// The head's own compact target.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// The compact target of a child.
    pub fn next_bits(&self, spec: &NetworkSpec) -> Bits {
        target::next_bits(spec, self.height.0 + 1, self.anchor, self.schedule_secs)
    }

    /// What whoever is keyed on this head must meet.
    pub fn facts(&self, spec: &NetworkSpec, root: Root) -> ParentFacts {
        let head_target = self.next_bits(spec).target();
        let mut times = self.times.clone();
        times.sort_unstable();
        let median = Millis(times.get(times.len() / 2).copied().unwrap_or_default());
        ParentFacts { root, height: self.height, head_target, share_target: target::share_target(head_target, spec.share_log2()), median }
    }

    /// The bytes that a store keeps.
    pub fn to_bytes(&self) -> Vec<u8> {
        let form: PlaceForm = (
            self.height.0,
            serde_bytes::ByteArray::new(self.work.to_be_bytes()),
            self.bits.get(),
            self.schedule_secs,
            (self.anchor.height, self.anchor.parent_time_secs, self.anchor.bits.get()),
            self.times.clone(),
        );
        codec::encode(&form)
    }

    /// Reads what [`Place::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (height, work, bits, schedule_secs, anchor, times): PlaceForm = codec::decode(bytes, 512).ok()?;
        if times.is_empty() || times.len() > MEDIAN_SPAN {
            return None;
        }
        Some(Self {
            height: Height(height),
            work: U256::from_be_bytes(work.into_array()),
            bits: Bits::new(bits).ok()?,
            schedule_secs,
            anchor: Anchor { height: anchor.0, parent_time_secs: anchor.1, bits: Bits::new(anchor.2).ok()? },
            times,
        })
    }
}

/// A head in memory.
#[derive(Debug, Clone)]
struct Node {
    parent: Root,
    place: Place,
    facts: ParentFacts,
    unit: Option<UnitId>,
    /// Whether this node has recomputed it; genesis needs no audit.
    audited: bool,
    children: BTreeSet<Root>,
}

/// How the main chain changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reorg {
    /// Heads that left it, highest first.
    pub undone: Vec<Root>,
    /// Heads that joined it, lowest first.
    pub applied: Vec<Root>,
}

impl Reorg {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.undone.is_empty() && self.applied.is_empty()
    }
}

/// The tree and its best branch.
#[derive(Debug)]
pub struct Chain {
    spec: NetworkSpec,
    nodes: BTreeMap<Root, Node>,
    /// `main[h - 1]` is the main chain's root at height h.
    main: Vec<Root>,
    tip: Root,
    /// Main heads up to this height that memory let go may have been taken as claimed.
    doubtful: Height,
}

impl Chain {
    /// Genesis alone.
    pub fn new(spec: NetworkSpec) -> Self {
        let root = spec.genesis();
        let place = Place::genesis(&spec);
        let facts = place.facts(&spec, root);
        let node = Node { parent: root, place, facts, unit: None, audited: true, children: BTreeSet::new() };
        Self { spec, nodes: BTreeMap::from([(root, node)]), main: Vec::new(), tip: root, doubtful: Height(0) }
    }

    /// Puts back a stored main chain, whose lowest heads may be without rows.
    pub fn restore_main(&mut self, main: Vec<Root>) {
        if let Some(last) = main.last()
            && self.nodes.contains_key(last)
        {
            self.tip = *last;
            self.main = main;
        }
    }

    /// Puts back a stored head. Its parent may be below what memory keeps.
    pub fn restore_head(&mut self, root: Root, parent: Root, unit: UnitId, audited: bool, place: Place) {
        let facts = place.facts(&self.spec, root);
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.insert(root);
        }
        self.nodes.insert(root, Node { parent, place, facts, unit: Some(unit), audited, children: BTreeSet::new() });
    }

    /// Says that stored main heads without rows in memory may have been taken as claimed.
    pub fn doubt_stored(&mut self) {
        let in_memory = self.nodes.iter().filter(|(root, node)| node.place.height.0 > 0 && self.is_main(root));
        let lowest = in_memory.map(|(_, node)| node.place.height.0).min();
        self.doubtful = Height(lowest.unwrap_or_default().saturating_sub(1));
    }

    /// The rules that this chain follows.
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }
    /// The best head.
    pub fn tip(&self) -> Root {
        self.tip
    }
    /// The best head's place.
    pub fn tip_place(&self) -> &Place {
        match self.nodes.get(&self.tip) {
            Some(node) => &node.place,
            None => unreachable!("the tip is never pruned"),
        }
    }
    /// The best head's height.
    pub fn height(&self) -> Height {
        self.tip_place().height
    }
    /// Heads in memory.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    /// What is keyed on the head must meet this; `None` when it is not in memory.
    pub fn facts(&self, root: &Root) -> Option<&ParentFacts> {
        self.nodes.get(root).map(|node| &node.facts)
    }
    /// The head's place.
    pub fn place(&self, root: &Root) -> Option<&Place> {
        self.nodes.get(root).map(|node| &node.place)
    }
    /// The unit that won the head; `None` for genesis and for heads that are not in memory.
    pub fn unit(&self, root: &Root) -> Option<UnitId> {
        self.nodes.get(root).and_then(|node| node.unit)
    }
    /// The height of a head that a peer shows, if it is known: in memory by its unit, on the main chain also where memory has let it go.
    /// What a receipt says of its own epoch proves nothing.
    pub fn height_of(&self, head: &Semantic) -> Option<Height> {
        let (root, said) = (head.root(), Height(head.receipt().epoch_id));
        match self.nodes.get(&root) {
            Some(node) => (node.unit == Some(head.unit())).then_some(node.place.height),
            None => (self.main_at(said) == Some(root)).then_some(said),
        }
    }
    /// Whether the head is in memory and was recomputed here.
    pub fn is_audited(&self, root: &Root) -> bool {
        self.nodes.get(root).is_some_and(|node| node.audited)
    }
    /// Whether the head's parent is in memory, so that the head can be cut off.
    pub fn has_parent(&self, root: &Root) -> bool {
        self.nodes.get(root).is_some_and(|node| self.nodes.contains_key(&node.parent))
    }
    /// Whether the head is in memory.
    pub fn contains(&self, root: &Root) -> bool {
        self.nodes.contains_key(root)
    }
    /// Whether the head is on the main chain.
    pub fn is_main(&self, root: &Root) -> bool {
        self.nodes.get(root).is_some_and(|node| self.main_at(node.place.height) == Some(*root))
    }
    /// The main chain's head at a height.
    pub fn main_at(&self, height: Height) -> Option<Root> {
        match height.0 {
            0 => Some(self.spec.genesis()),
            h => usize::try_from(h - 1).ok().and_then(|i| self.main.get(i)).copied(),
        }
    }
    /// Whether shares keyed on the head earn: it or its parent is on the main chain.
    pub fn earns(&self, root: &Root) -> bool {
        self.nodes.get(root).is_some_and(|node| self.is_main(root) || self.is_main(&node.parent))
    }
    /// The head's children in memory.
    pub fn children(&self, root: &Root) -> impl Iterator<Item = Root> + '_ {
        self.nodes.get(root).into_iter().flat_map(|node| node.children.iter().copied())
    }

    /// Whether a tip with this work would be chosen before ours. A tie goes to the smaller root.
    pub fn is_better(&self, work: U256, root: &Root) -> bool {
        let ours = self.tip_place().work;
        work > ours || (work == ours && *root < self.tip)
    }

    /// Adds a head whose parent is in memory and re-chooses the best. `None` when it is there already or has no parent here.
    pub fn insert(&mut self, head: &Contextual, audited: bool) -> Option<Reorg> {
        let receipt = head.semantic().receipt();
        let root = receipt.work_root;
        if self.nodes.contains_key(&root) {
            return None;
        }
        let parent = self.nodes.get_mut(&receipt.prev_hash)?;
        parent.children.insert(root);
        let place = parent.place.child(&self.spec, receipt.timestamp);
        let (facts, work) = (place.facts(&self.spec, root), place.work);
        let unit = Some(head.semantic().unit());
        self.nodes.insert(root, Node { parent: receipt.prev_hash, place, facts, unit, audited, children: BTreeSet::new() });
        Some(if self.is_better(work, &root) { self.switch_to(root) } else { Reorg::default() })
    }

    /// A head that was taken as claimed was recomputed after all.
    pub fn confirm(&mut self, root: &Root) {
        if let Some(node) = self.nodes.get_mut(root) {
            node.audited = true;
        }
    }

    /// The lowest head taken as claimed among the `newest` that end at this one, as far as memory goes.
    pub fn lowest_claimed(&self, end: &Root, newest: u64) -> Option<Root> {
        let (mut at, mut lowest) = (*end, None);
        for _ in 0..newest {
            let Some(node) = self.nodes.get(&at) else { break };
            if !node.audited {
                lowest = Some(at);
            }
            at = node.parent;
        }
        lowest
    }

    /// Where to cut the main chain so that its `newest` heads are audited ones, all that memory holds of them; `None`: they are.
    pub fn unsettled(&self, newest: u64) -> Option<Root> {
        let (mut end, mut cut) = (self.tip, None);
        while let Some(lowest) = self.lowest_claimed(&end, newest) {
            cut = Some(lowest);
            match self.nodes.get(&lowest) {
                Some(node) if self.nodes.contains_key(&node.parent) => end = node.parent,
                _ => break,
            }
        }
        cut
    }

    /// Whether the head is `base` or stands on it, both in memory.
    pub fn stands_on(&self, root: &Root, base: &Root) -> bool {
        let Some(floor) = self.place(base).map(|place| place.height) else { return false };
        let mut at = *root;
        while let Some(node) = self.nodes.get(&at).filter(|node| node.place.height > floor) {
            at = node.parent;
        }
        at == *base
    }

    /// Removes a head with all that stands on it, a branch that was taken as claimed and proved false: what was removed with the units
    /// that won it, lowest first, and how the main chain changed.
    pub fn remove_branch(&mut self, lowest: Root) -> (Vec<(Root, Option<UnitId>)>, Reorg) {
        if !self.nodes.contains_key(&lowest) || self.nodes.get(&lowest).is_some_and(|node| !self.nodes.contains_key(&node.parent)) {
            return (Vec::new(), Reorg::default());
        }
        let mut removed = Vec::new();
        let mut open = alloc::vec![lowest];
        while let Some(root) = open.pop() {
            open.extend(self.children(&root));
            removed.push((root, self.unit(&root)));
        }
        let gone: BTreeSet<Root> = removed.iter().map(|(root, _)| *root).collect();
        let mut reorg = Reorg::default();
        if gone.contains(&self.tip) {
            let mut left: Vec<(U256, Root)> =
                self.nodes.iter().filter(|(root, _)| !gone.contains(*root)).map(|(root, node)| (node.place.work, *root)).collect();
            left.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            // The lowest removed head's parent is a main head in memory, so there is always one.
            if let Some((_, best)) = left.into_iter().find(|(_, root)| self.meets_main(root)) {
                reorg = self.switch_to(best);
            }
        }
        for root in &gone {
            if let Some(node) = self.nodes.remove(root)
                && let Some(parent) = self.nodes.get_mut(&node.parent)
            {
                parent.children.remove(root);
            }
        }
        (removed, reorg)
    }

    /// Whether the head's ancestors in memory lead to the main chain.
    fn meets_main(&self, root: &Root) -> bool {
        let mut at = *root;
        while !self.is_main(&at) {
            match self.nodes.get(&at) {
                Some(node) => at = node.parent,
                None => return false,
            }
        }
        true
    }

    fn switch_to(&mut self, tip: Root) -> Reorg {
        let mut applied = Vec::new();
        let mut at = tip;
        while !self.is_main(&at) {
            applied.push(at);
            match self.nodes.get(&at) {
                Some(node) => at = node.parent,
                // A branch whose base was pruned: it lies below retention, where nothing is added. Stay where we are.
                None => return Reorg::default(),
            }
        }
        applied.reverse();
        let fork = self.nodes.get(&at).map(|node| node.place.height.0).unwrap_or_default();
        let keep = usize::try_from(fork).unwrap_or(usize::MAX).min(self.main.len());
        let mut undone = self.main.split_off(keep);
        undone.reverse();
        self.main.extend(applied.iter().copied());
        self.tip = tip;
        Reorg { undone, applied }
    }

    /// Forgets heads below `horizon`; gives the roots of side branches among them, which no store needs any more.
    pub fn prune(&mut self, horizon: Height) -> Vec<Root> {
        let old: Vec<Root> = self.nodes.iter().filter(|(_, node)| node.place.height < horizon).map(|(root, _)| *root).collect();
        let mut side = Vec::new();
        for root in old {
            let main = self.is_main(&root);
            if !main {
                side.push(root);
            }
            let Some(node) = self.nodes.remove(&root) else { continue };
            if main && !node.audited {
                self.doubtful = self.doubtful.max(node.place.height);
            }
            if let Some(parent) = self.nodes.get_mut(&node.parent) {
                parent.children.remove(&root);
            }
        }
        // A side branch whose base is gone can never win any more, nor be judged.
        let orphans: Vec<Root> = self
            .nodes
            .iter()
            .filter(|(root, node)| node.place.height > horizon && !self.nodes.contains_key(&node.parent) && !self.is_main(root))
            .map(|(root, _)| *root)
            .collect();
        let mut open = orphans;
        while let Some(root) = open.pop() {
            open.extend(self.children(&root).collect::<Vec<_>>());
            self.nodes.remove(&root);
            side.push(root);
        }
        side
    }

    /// Heights and roots of the main chain from `top` down, dense at first and ever sparser, ending at genesis (spec §6).
    pub fn locator(&self, top: Height, most: usize) -> Vec<(Height, Root)> {
        let mut pairs = Vec::new();
        let (mut height, mut step) = (top.0.min(self.height().0), 1u64);
        while pairs.len() + 1 < most {
            if let Some(root) = self.main_at(Height(height)) {
                pairs.push((Height(height), root));
            }
            if height == 0 {
                return pairs;
            }
            if pairs.len() >= 10 {
                step = step.saturating_mul(2);
            }
            height = height.saturating_sub(step);
        }
        pairs.push((Height(0), self.spec.genesis()));
        pairs
    }

    /// Roots of the main chain above the highest pair of `locator` that is on it, up to the first that this node has not recomputed: who
    /// passes a false head on pays for it.
    pub fn after(&self, locator: &[(Height, Root)], most: usize) -> Vec<Root> {
        let base = locator.iter().filter(|(height, root)| self.main_at(*height) == Some(*root)).map(|(height, _)| height.0).max();
        let base = base.unwrap_or_default();
        let from = usize::try_from(base).unwrap_or(usize::MAX).min(self.main.len());
        let vouched = |height: u64, root: &Root| self.nodes.get(root).map_or(height > self.doubtful.0, |node| node.audited);
        (base + 1..).zip(&self.main[from..]).take(most).take_while(|(height, root)| vouched(*height, root)).map(|(_, root)| *root).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Fields;
    use crate::receipt::{KERNEL_V2, Receipt, Text};
    use crate::types::{Nonce, PublicKey, Signature};
    use crate::verify::Structural;
    use proptest::prelude::*;

    fn easy() -> NetworkSpec {
        let mut fields: Fields = *NetworkSpec::dev().fields();
        (fields.genesis_bits, fields.easiest_bits) = (0x207f_ffff, 0x207f_ffff);
        NetworkSpec::new(fields).unwrap()
    }

    /// A head on `prev` whose root begins with a zero byte and `tag`, so that it meets the easiest target. Nothing in a chain asks
    /// for a signature or an audit: the types of `verify` do, and this steps past them.
    fn head(chain: &Chain, prev: Root, tag: u8) -> Contextual {
        let facts = *chain.facts(&prev).unwrap();
        let mut root = *blake3::keyed_hash(&prev.0, &[tag]).as_bytes();
        (root[0], root[1]) = (0, tag);
        let receipt = Receipt {
            device_did: Text::cleaned("test"),
            epoch_id: facts.height.0 + 1,
            prev_hash: prev,
            nonce: Nonce::new(tag.into()).unwrap(),
            work_root: Root(root),
            shape: chain.spec().shape(),
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: Text::cleaned("test"),
            network: chain.spec().tag(),
            miner: PublicKey([2; 33]),
            timestamp: facts.median.plus(4_000),
            sig: Signature([0; 64]),
        };
        let signed = Structural::of_any_network(receipt).unwrap().known_signed();
        let contextual = signed.contextual(&facts).unwrap();
        assert!(contextual.is_head());
        contextual
    }

    fn roots_of(chain: &Chain) -> Vec<Root> {
        (0..=chain.height().0).filter_map(|h| chain.main_at(Height(h))).collect()
    }

    #[test]
    fn the_longer_branch_wins_and_a_tie_goes_to_the_smaller_root() {
        let mut chain = Chain::new(easy());
        let genesis = chain.tip();
        let (b, a) = (head(&chain, genesis, 9), head(&chain, genesis, 3));
        let (ra, rb) = (a.semantic().root(), b.semantic().root());
        assert_eq!(chain.insert(&b, true).unwrap(), Reorg { undone: Vec::new(), applied: alloc::vec![rb] });
        assert_eq!(chain.insert(&a, true).unwrap(), Reorg { undone: alloc::vec![rb], applied: alloc::vec![ra] });
        assert!(chain.insert(&a, true).is_none(), "a head joins once");
        let c = head(&chain, rb, 200);
        let rc = c.semantic().root();
        assert_eq!(chain.insert(&c, true).unwrap(), Reorg { undone: alloc::vec![ra], applied: alloc::vec![rb, rc] });
        assert!(chain.earns(&ra), "its parent is on the main chain");
        assert_eq!(chain.after(&chain.locator(Height(1), 8), 8), [rc]);
        let (removed, reorg) = chain.remove_branch(rb);
        assert_eq!(removed.len(), 2);
        assert_eq!((chain.tip(), reorg.applied), (ra, alloc::vec![ra]));
    }

    #[test]
    fn a_place_survives_its_bytes() {
        let mut chain = Chain::new(easy());
        for tag in 0..20 {
            let next = head(&chain, chain.tip(), tag);
            chain.insert(&next, true).unwrap();
        }
        let place = chain.tip_place();
        assert_eq!(Place::from_bytes(&place.to_bytes()).as_ref(), Some(place));
        assert_eq!(Place::from_bytes(&place.to_bytes()[1..]), None);
    }

    /// A place's bytes with any numbers in them, as a store or another version might hold them.
    fn place_bytes() -> impl Strategy<Value = Vec<u8>> {
        let times = proptest::collection::vec(any::<u64>(), 0..=MEDIAN_SPAN + 2);
        let bits = || prop_oneof![any::<u32>(), Just(0x1f3f_ffff_u32)];
        let anchor = (any::<u64>(), any::<i64>(), bits());
        (any::<u64>(), any::<[u8; 32]>(), bits(), any::<i64>(), anchor, times).prop_map(
            |(height, work, bits, schedule_secs, anchor, times)| {
                let form: PlaceForm = (height, serde_bytes::ByteArray::new(work), bits, schedule_secs, anchor, times);
                codec::encode(&form)
            },
        )
    }

    proptest! {
        #[test]
        fn bytes_are_no_place_or_those_of_the_place(
            garbage in proptest::collection::vec(any::<u8>(), 0..600), numbers in place_bytes(),
            at in any::<proptest::sample::Index>(), flip in 1u8.., cut in any::<proptest::sample::Index>(),
        ) {
            let mut changed = numbers.clone();
            changed[at.index(numbers.len())] ^= flip;
            let shortened = numbers[..cut.index(numbers.len())].to_vec();
            prop_assert_eq!(Place::from_bytes(&shortened), None);
            for bytes in [garbage, numbers, changed] {
                if let Some(place) = Place::from_bytes(&bytes) {
                    prop_assert_eq!(place.to_bytes(), bytes);
                }
            }
        }

        /// Whatever the order in which heads come, parents first, nodes with the same heads agree on the whole main chain.
        #[test]
        fn the_choice_does_not_depend_on_the_order(parents in proptest::collection::vec(0usize..40, 1..40), order in proptest::collection::vec(any::<u32>(), 40)) {
            let mut first = Chain::new(easy());
            let mut roots = alloc::vec![first.tip()];
            let mut heads: Vec<(usize, Contextual)> = Vec::new();
            for (i, parent) in parents.iter().enumerate() {
                let parent = parent % roots.len();
                let next = head(&first, roots[parent], i as u8 + 1);
                roots.push(next.semantic().root());
                prop_assert!(first.insert(&next, true).is_some());
                heads.push((parent, next));
            }
            let mut second = Chain::new(easy());
            let mut open: Vec<usize> = (0..heads.len()).collect();
            let mut turn = 0;
            while !open.is_empty() {
                let ready: Vec<usize> = open.iter().copied().filter(|i| second.contains(&roots[heads[*i].0])).collect();
                let pick = ready[order[turn % order.len()] as usize % ready.len()];
                turn += 1;
                prop_assert!(second.insert(&heads[pick].1, true).is_some());
                open.retain(|i| *i != pick);
            }
            prop_assert_eq!(roots_of(&first), roots_of(&second));
        }
    }
}
