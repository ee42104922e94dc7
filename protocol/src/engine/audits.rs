//! Claims whose truth is open: queued fairly, handed to devices a bounded number at a time, answered to whoever waits (spec §5).
//!
//! A claim is a unit with a root. It is computed once, however many wait for it. Order: priority, then round-robin over the
//! peers that delivered, then age; so a peer that delivers much delays itself and nobody else.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::io::{AuditId, AuditOutcome, Message, Output, Peer, Priority, Topic};
use crate::types::{Millis, PublicKey, Root, UnitId};
use crate::verify::Contextual;

/// Audits that devices hold at a time; the rest waits here, where its order can still change.
pub const IN_FLIGHT_MAX: usize = 64;
/// Claims that are undecided at a time; further shares are ignored, further heads come again by sync.
pub const UNDECIDED_MAX: usize = 4_096;
/// Heads that are still taken when the pool is full of shares.
const HEADS_ABOVE_FULL: usize = 512;
/// Of the undecided, those that wait to be forwarded, all deliverers together; further ones are ignored, so that what was asked for and what
/// trusted keys send finds room whoever gossips what.
const FORWARDING_MAX: usize = UNDECIDED_MAX / 2;
/// Up to this many undecided claims, undrawn shares are audited too.
pub const ROOM: usize = 1_024;
/// How often a claim is given to a device that could not do it, before it is dropped unaudited.
pub const TRIES_MAX: u8 = 3;
/// Those who wait for one claim; a further one is told to ignore.
const WAITERS_MAX: usize = 16;
/// Places in the round-robin that are remembered before those that are past are forgotten; what remains is bounded by the queue.
const ROUNDS_MAX: usize = 1_024;
/// A gossip verdict is given after this time at the latest: gossip forgets the message soon after (history 12 × 1 s).
pub const VERDICT_DUE_MS: u64 = 9_000;

/// A unit with a root.
pub type Claim = (UnitId, Root);

/// Who waits for a claim's audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiter {
    /// Gossip wants a verdict.
    Gossip {
        /// Who delivered it.
        peer: Peer,
        /// Which message.
        message: Message,
        /// On which topic.
        topic: Topic,
        /// When it came.
        since: Millis,
    },
    /// Gossip was told to ignore it, because no device was in time. It still counts against what its deliverer may have open.
    Late {
        /// Who delivered it.
        peer: Peer,
        /// On which topic.
        topic: Topic,
    },
    /// Nobody waits, but this peer pays if it is false.
    Delivered {
        /// Who.
        peer: Peer,
    },
    /// The download of heads waits.
    Offer,
    /// A peer's list of bans holds it.
    Ban {
        /// Who.
        peer: Peer,
    },
    /// An accepted share is looked at after all.
    Recheck,
}

/// A claim and those who wait.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is claimed.
    pub share: Contextual,
    /// Who waits.
    pub waiters: Vec<Waiter>,
    priority: Priority,
    tries: u8,
    slot: Option<Slot>,
    id: Option<AuditId>,
    /// Whether it was opened for a verdict.
    forwarding: bool,
}

type Slot = (Priority, u64, u64);

/// What became of an audit.
#[derive(Debug)]
pub enum Closed {
    /// The root is known.
    Computed(Case, Root),
    /// No device could tell; dropped.
    Unaudited(Case),
    /// Unknown number, or it will be tried again.
    Nothing,
}

/// The pool of the undecided.
#[derive(Debug, Default)]
pub struct Audits {
    cases: BTreeMap<Claim, Case>,
    queue: BTreeMap<Slot, Claim>,
    running: BTreeMap<AuditId, Claim>,
    by_head: BTreeMap<(Root, PublicKey), usize>,
    by_root: BTreeMap<Root, usize>,
    /// Claims that were opened for a verdict.
    forwarding: usize,
    rounds: BTreeMap<(Priority, Peer), u64>,
    now_round: u64,
    sequence: u64,
    next_id: u64,
}

impl Audits {
    /// Undecided claims.
    pub fn len(&self) -> usize {
        self.cases.len()
    }
    /// Claims that devices hold.
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }
    /// Whether undrawn shares are audited too.
    pub fn has_room(&self) -> bool {
        self.cases.len() < ROOM
    }
    /// Whether no further share is taken.
    pub fn is_full(&self) -> bool {
        self.cases.len() >= UNDECIDED_MAX
    }
    /// Whether no further single head is taken; a download brings it later.
    pub fn is_full_for_heads(&self) -> bool {
        self.cases.len() >= UNDECIDED_MAX + HEADS_ABOVE_FULL
    }
    /// Whether no further share is taken that waits to be forwarded.
    pub fn is_full_to_forward(&self) -> bool {
        self.is_full() || self.forwarding >= FORWARDING_MAX
    }
    /// Whether no further head or alert is taken that waits to be forwarded.
    pub fn is_full_to_forward_heads(&self) -> bool {
        self.is_full_for_heads() || self.forwarding >= FORWARDING_MAX + HEADS_ABOVE_FULL
    }
    /// Whether the claim is undecided.
    pub fn contains(&self, claim: &Claim) -> bool {
        self.cases.contains_key(claim)
    }
    /// Undecided claims of a unit with another root than this.
    pub fn has_rival(&self, unit: &UnitId, root: &Root) -> bool {
        self.cases.range((*unit, Root([0; 32]))..=(*unit, Root([255; 32]))).any(|((_, other), _)| other != root)
    }
    /// Whether some undecided claim has this root.
    pub fn has_root(&self, root: &Root) -> bool {
        self.by_root.contains_key(root)
    }
    /// How many undecided claims of a miner are keyed on a head.
    pub fn count_on(&self, head: &Root, miner: &PublicKey) -> usize {
        self.by_head.get(&(*head, *miner)).copied().unwrap_or_default()
    }

    /// Adds a waiter to an undecided claim. `false` when too many wait.
    pub fn join(&mut self, claim: &Claim, waiter: Waiter, priority: Priority) -> bool {
        let Some(case) = self.cases.get_mut(claim) else { return false };
        if case.waiters.len() >= WAITERS_MAX {
            return false;
        }
        case.waiters.push(waiter);
        if priority < case.priority {
            case.priority = priority;
            if let Some(slot) = case.slot.take() {
                self.queue.remove(&slot);
                let slot = (priority, slot.1, slot.2);
                case.slot = Some(slot);
                self.queue.insert(slot, *claim);
            }
        }
        true
    }

    /// Opens a claim. The caller has seen that it is not open yet.
    pub fn open(&mut self, share: Contextual, waiter: Waiter, priority: Priority) {
        let claim = (share.semantic().unit(), share.semantic().root());
        let receipt = share.semantic().receipt();
        *self.by_head.entry((receipt.prev_hash, receipt.miner)).or_default() += 1;
        *self.by_root.entry(claim.1).or_default() += 1;
        let slot = self.slot_for(priority, &waiter);
        self.queue.insert(slot, claim);
        let forwarding = matches!(waiter, Waiter::Gossip { .. });
        self.forwarding += usize::from(forwarding);
        self.cases.insert(claim, Case { share, waiters: alloc::vec![waiter], priority, tries: 0, slot: Some(slot), id: None, forwarding });
    }

    fn slot_for(&mut self, priority: Priority, waiter: &Waiter) -> Slot {
        self.sequence += 1;
        let round = match waiter {
            Waiter::Gossip { peer, .. } | Waiter::Late { peer, .. } | Waiter::Delivered { peer } | Waiter::Ban { peer } => {
                let last = self.rounds.entry((priority, *peer)).or_default();
                *last = (*last + 1).max(self.now_round);
                *last
            }
            Waiter::Offer | Waiter::Recheck => self.now_round,
        };
        (priority, round, self.sequence)
    }

    /// Hands claims to devices while they take more.
    pub fn dispatch(&mut self, out: &mut Vec<Output>) {
        while self.running.len() < IN_FLIGHT_MAX {
            let Some((slot, claim)) = self.queue.pop_first() else { break };
            let Some(case) = self.cases.get_mut(&claim) else { continue };
            self.now_round = self.now_round.max(slot.1);
            let audit = AuditId(self.next_id);
            self.next_id += 1;
            case.slot = None;
            case.id = Some(audit);
            self.running.insert(audit, claim);
            out.push(Output::Audit { audit, priority: case.priority, attempt: case.share.semantic().attempt(), claimed: claim.1 });
        }
        // A peer whose last round is past stands where a newcomer does, so nothing of it need be remembered.
        if self.rounds.len() > ROUNDS_MAX {
            let now_round = self.now_round;
            self.rounds.retain(|_, last| *last >= now_round);
        }
        if self.queue.is_empty() {
            self.rounds.clear();
        }
    }

    /// A device has answered.
    pub fn close(&mut self, audit: AuditId, outcome: AuditOutcome) -> Closed {
        let Some(claim) = self.running.remove(&audit) else { return Closed::Nothing };
        match outcome {
            AuditOutcome::Computed(root) => self.remove(&claim).map_or(Closed::Nothing, |case| Closed::Computed(case, root)),
            AuditOutcome::Unable => {
                let Some(case) = self.cases.get_mut(&claim) else { return Closed::Nothing };
                case.tries += 1;
                case.id = None;
                if case.tries < TRIES_MAX {
                    self.sequence += 1;
                    let slot = (case.priority, self.now_round + 1, self.sequence);
                    case.slot = Some(slot);
                    self.queue.insert(slot, claim);
                    return Closed::Nothing;
                }
                self.remove(&claim).map_or(Closed::Nothing, Closed::Unaudited)
            }
        }
    }

    fn remove(&mut self, claim: &Claim) -> Option<Case> {
        let case = self.cases.remove(claim)?;
        if let Some(slot) = &case.slot {
            self.queue.remove(slot);
        }
        self.forwarding -= usize::from(case.forwarding);
        let receipt = case.share.semantic().receipt();
        count_down(&mut self.by_head, &(receipt.prev_hash, receipt.miner));
        count_down(&mut self.by_root, &claim.1);
        Some(case)
    }

    /// Drops claims that nobody needs any more: shares of a banned miner, old ones. Gives them, for those who wait.
    pub fn drop_if(&mut self, unwanted: impl Fn(&Case) -> bool, out: &mut Vec<Output>) -> Vec<Case> {
        let claims: Vec<Claim> = self.cases.iter().filter(|(_, case)| unwanted(case)).map(|(claim, _)| *claim).collect();
        let mut dropped = Vec::new();
        for claim in claims {
            if let Some(case) = self.remove(&claim) {
                if let Some(audit) = case.id {
                    self.running.remove(&audit);
                    out.push(Output::CancelAudit { audit });
                }
                dropped.push(case);
            }
        }
        dropped
    }

    /// Takes back the gossip messages whose verdict must be given now.
    pub fn overdue(&mut self, now: Millis) -> Vec<Message> {
        let mut late = Vec::new();
        for case in self.cases.values_mut() {
            for waiter in &mut case.waiters {
                if let Waiter::Gossip { peer, message, topic, since } = *waiter
                    && now.since(since) >= VERDICT_DUE_MS
                {
                    late.push(message);
                    *waiter = Waiter::Late { peer, topic };
                }
            }
        }
        late
    }

    /// The download of heads was given up: its claims go on only where somebody else waits, and no later download answers for them.
    pub fn leave_offer(&mut self, out: &mut Vec<Output>) {
        for case in self.cases.values_mut().filter(|case| case.waiters.contains(&Waiter::Offer)) {
            case.waiters.retain(|waiter| *waiter != Waiter::Offer);
        }
        self.drop_if(|case| case.waiters.is_empty(), out);
    }
}

/// Takes one from a count; a count of zero is forgotten.
pub fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
