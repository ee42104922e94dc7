//! The driver's part: what an engine says is done, and counted.

use rand::Rng;
use tops_protocol::engine::{
    Answer, AnswerId, AskId, AuditOutcome, Input, Message, Note, Op, Output, Peer, PeerFault, Query, Reply, Topic, Verdict,
};
use tops_protocol::verify::Semantic;
use tops_protocol::{Attempt, UnitId};

use super::world::{ANSWER_US, Event, World};

/// From a commit to its flush.
const FLUSH_US: u64 = 2_000;

/// What a fault costs a peer; see `node/src/net/scoring.rs`.
fn cost(fault: PeerFault) -> f64 {
    match fault {
        PeerFault::BadReply => 40.0,
        PeerFault::FalseShare => 6.0,
        PeerFault::FalseHead => 60.0,
        PeerFault::Greedy => 5.0,
    }
}

impl World {
    pub(super) fn carry_out(&mut self, node: u32, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Verdict { message, verdict } => self.verdict(node, message, verdict),
                Output::Publish { topic, receipt } => self.publish(node, topic, &receipt),
                Output::Audit { audit, attempt, .. } => {
                    let outcome = self.audit(node, &attempt);
                    let takes = self.takes_us(node);
                    let at = &mut self.nodes[node as usize];
                    at.device.push_back((audit, outcome));
                    at.device_free_us = at.device_free_us.max(self.now_us) + takes;
                    let free = at.device_free_us;
                    self.at(free, Event::Audited(node));
                }
                // Too late to call it back: the result comes all the same.
                Output::CancelAudit { .. } => {}
                Output::Commit { batch, then } => {
                    for op in batch {
                        self.store(node, op);
                    }
                    if !then.is_empty() {
                        self.nodes[node as usize].unflushed.push_back(then);
                        self.after(FLUSH_US, Event::Flush(node));
                    }
                }
                Output::Sign { draft } => {
                    if let Some(receipt) = self.sign(node, draft) {
                        self.truth.remember(&receipt.attempt(), receipt.root());
                        self.know_true_head(&receipt);
                        self.input(node, Input::Signed { receipt });
                    }
                }
                Output::Job(job) => self.nodes[node as usize].job = job,
                Output::Ask { peer, ask, query } => self.ask(node, peer.0 as u32, ask, query),
                Output::Answer { answer, with } => self.answer(node, answer, with),
                Output::Penalise { peer, fault } => {
                    if !self.nodes[node as usize].adversary {
                        self.measure.penalised(self.is_adversary(peer));
                    }
                    self.punish(node, peer.0 as u32, None, cost(fault));
                }
                Output::Note(note) => self.note(node, &note),
            }
        }
    }

    fn is_adversary(&self, peer: Peer) -> bool {
        self.nodes.get(peer.0 as usize).is_some_and(|node| node.adversary)
    }

    /// A root at or below its head's head target enters the world's tree.
    pub(super) fn know_true_head(&mut self, receipt: &Semantic) {
        let head = self.facts(&receipt.receipt().prev_hash).is_some_and(|facts| receipt.root().ticket() <= facts.head_target);
        if head {
            self.know_head(receipt);
        }
    }

    fn audit(&mut self, node: u32, attempt: &Attempt) -> AuditOutcome {
        if self.nodes[node as usize].faulty && self.rng.random_bool(0.5) {
            return AuditOutcome::Unable;
        }
        AuditOutcome::Computed(self.truth.root(attempt))
    }

    /// What an audit of `standard` takes on a core, and on a device that is about to fail.
    fn takes_us(&mut self, node: u32) -> u64 {
        let slow = if self.nodes[node as usize].faulty { 20 } else { 1 };
        slow * self.rng.random_range(2_000..5_000)
    }

    fn store(&mut self, node: u32, op: Op) {
        match op {
            Op::PutShare(row) if self.many.contains(&row.unit) => {
                if let Some(semantic) = self.by_wire.get(&row.wire).cloned() {
                    self.nodes[node as usize].variants.insert(row.unit, semantic);
                }
            }
            Op::PutBan(row) => {
                let first = self.by_wire.get(&row.wire).cloned();
                if let Some(proof) = first {
                    self.nodes[node as usize].bans.insert(row.miner, proof);
                }
            }
            Op::PutLedger { miner, row } => {
                if self.measure.reference == node {
                    self.measure.ledger.insert(miner, row);
                }
                if self.measure.is_watched(&miner) {
                    self.nodes[node as usize].credit.insert(miner, row.credit);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, node: u32, note: &Note) {
        match note {
            Note::Tip { root, height, undone } => {
                (self.nodes[node as usize].tip, self.nodes[node as usize].height) = (*root, height.0);
                if !self.nodes[node as usize].adversary {
                    self.measure.deepest = self.measure.deepest.max(*undone);
                }
            }
            Note::Accepted { unit, .. } if !self.nodes[node as usize].adversary => self.measure.accepted(node, unit, self.now_us),
            Note::FalseRoot { miner, banned: true } if !self.nodes[node as usize].adversary => self.measure.banned(node, *miner),
            Note::Refused { fault } if !self.nodes[node as usize].adversary => {
                *self.measure.refused.entry(fault.label()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn publish(&mut self, node: u32, topic: Topic, receipt: &Semantic) {
        if topic != Topic::Alerts && !self.nodes[node as usize].adversary {
            self.measure.published(node, receipt.unit(), self.now_us);
        }
        let msg = self.message(topic, Some(receipt.clone()), receipt.wire());
        self.shout(node, msg);
    }

    fn verdict(&mut self, node: u32, message: Message, verdict: Verdict) {
        let (msg, from) = ((message.0 >> 32) as u32, message.0 as u32);
        match verdict {
            Verdict::Accept => self.forward(node, from, msg),
            Verdict::Reject => {
                let topic = self.messages[msg as usize].topic;
                self.punish(node, from, Some(topic), 0.0);
            }
            Verdict::Ignore => {}
        }
    }

    fn ask(&mut self, node: u32, to: u32, ask: AskId, query: Query) {
        if self.carries(node, to) {
            let delay = self.delay_us(node, to);
            self.after(delay, Event::Query { to, from: node, ask, query: Box::new(query) });
        } else {
            self.after(ANSWER_US, Event::Reply { to: node, from: to, ask, reply: Box::new(Reply::Failed) });
        }
    }

    fn answer(&mut self, node: u32, answer: AnswerId, with: Answer) {
        let Some((_, to, ask)) = self.answers.remove(&answer) else { return };
        let of = |world: &Self, unit: &UnitId| world.nodes[node as usize].variants.get(unit).or_else(|| world.by_unit.get(unit)).cloned();
        let mut reply = match with {
            Answer::Status(status) => Reply::Status(status),
            Answer::Heads(roots) => Reply::Heads(roots.iter().filter_map(|root| self.head_receipts.get(root).cloned()).collect()),
            Answer::Shares { units, more } => Reply::Shares { receipts: units.iter().filter_map(|unit| of(self, unit)).collect(), more },
            Answer::Bans { miners, more } => {
                let bans = &self.nodes[node as usize].bans;
                Reply::Bans { receipts: miners.iter().filter_map(|miner| bans.get(miner).cloned()).collect(), more }
            }
            Answer::Refused => Reply::Failed,
        };
        let mut extra = 0;
        if self.nodes[node as usize].adversary
            && let Some(brain) = self.brain.take()
        {
            (reply, extra) = brain.answers(self, to, reply);
            self.brain = Some(brain);
        }
        let delay = self.delay_us(node, to) + extra;
        if delay < ANSWER_US {
            self.after(delay, Event::Reply { to, from: node, ask, reply: Box::new(reply) });
        } else {
            self.after(ANSWER_US, Event::Reply { to, from: node, ask, reply: Box::new(Reply::Failed) });
        }
    }
}
