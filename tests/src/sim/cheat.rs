//! What cheaters do. They run an honest engine to follow the chain, and beside it put on the wires what no engine would.

use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tops_protocol::engine::{Job, Topic};
use tops_protocol::receipt::{Draft, KERNEL_V2};
use tops_protocol::{Attempt, Nonce, Receipt, Root, Signature, Text, U256, UnitId};

use super::node::Bytes;
use super::world::World;

/// The kinds of fraud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fraud {
    /// Roots that were never computed, under its own key; its true heads go on.
    Inventor,
    /// Others' shares under its own key, signed anew.
    Thief,
    /// Others' shares with other metadata, the signature kept.
    Retoucher,
    /// Others' shares under their own keys, signed anew with its key.
    Forger,
    /// Its own true shares in several metadata variants, each signed.
    Varier,
    /// Its own units, each with the true root and with an invented one.
    TwoFaced,
}

/// A cheater's state.
#[derive(Debug, Clone)]
pub struct Cheat {
    /// What it does.
    pub fraud: Fraud,
    /// How many shares of its own must be acknowledged before it begins.
    pub after: usize,
    /// False or copied messages that it sent.
    pub sent: u64,
    /// True heads that it sent after its first lie.
    pub heads: Vec<Root>,
    /// Units that it sent in more than one form.
    pub units: Vec<UnitId>,
    /// Wire forms of others' shares that it sent under a signature that does not stand.
    pub copies: Vec<Vec<u8>>,
    rng: StdRng,
}

impl Cheat {
    /// Begins after `after` honest shares.
    pub fn new(fraud: Fraud, after: usize, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0x6368_6561);
        Self { fraud, after, sent: 0, heads: Vec::new(), units: Vec::new(), copies: Vec::new(), rng }
    }

    /// A root that would be a share and no head.
    fn invented(&mut self, job: &Job) -> Root {
        let room = job.share_target - job.head_target;
        let offset = U256::from_limbs(std::array::from_fn(|_| self.rng.random())) % room;
        Root((job.head_target + U256::from(1) + offset).to_be_bytes())
    }
}

/// A receipt of a node on its job, unsigned.
fn receipt(world: &World, job: &Job, attempt: Attempt, root: Root, did: &str, time_ms: u64) -> Receipt {
    Receipt {
        device_did: Text::cleaned(did),
        epoch_id: job.height.0 + 1,
        prev_hash: attempt.prev_hash,
        nonce: attempt.nonce,
        work_root: root,
        shape: attempt.shape,
        batch: 1,
        time_ms,
        kernel_ver: Text::cleaned(KERNEL_V2),
        driver_hint: Text::cleaned("CPU"),
        network: world.plan.network.tag(),
        miner: attempt.miner,
        timestamp: attempt.timestamp,
        sig: Signature([0; 64]),
    }
}

fn shout_signed(world: &mut World, node: usize, topic: Topic, receipt: Receipt) {
    let semantic = world.sign(node, Draft::new(receipt));
    let wire = semantic.wire().to_vec();
    world.shout(node, topic, &wire);
}

/// A node found a share. `true`: the cheater took it, its engine does not hear of it.
pub(super) fn found(world: &mut World, node: usize, job: &Job, attempt: Attempt, root: Root) -> bool {
    let begun = world.nodes[node].acknowledged.len();
    let Some(mut cheat) = world.nodes[node].cheat.take() else { return false };
    let is_head = root.ticket() <= job.head_target;
    let topic = if is_head { Topic::Heads } else { Topic::Receipts };
    let taken = match cheat.fraud {
        _ if begun < cheat.after => false,
        Fraud::Inventor => {
            let elsewhere = Attempt { nonce: Nonce::new(attempt.nonce.get() + 1_000_000).unwrap_or(attempt.nonce), ..attempt };
            let lie = cheat.invented(job);
            let lie = receipt(world, job, elsewhere, lie, "inventor", 1);
            shout_signed(world, node, Topic::Receipts, lie);
            cheat.sent += 1;
            if is_head && cheat.sent > 1 {
                let head = receipt(world, job, attempt, root, "inventor", 1);
                shout_signed(world, node, Topic::Heads, head);
                cheat.heads.push(root);
            }
            is_head && cheat.sent > 1
        }
        Fraud::Varier => {
            for (did, time_ms) in [("one", 1), ("two", 1), ("two", 2)] {
                let variant = receipt(world, job, attempt, root, did, time_ms);
                cheat.units.push(variant.unit());
                shout_signed(world, node, topic, variant);
                cheat.sent += 1;
            }
            true
        }
        Fraud::TwoFaced if !is_head => {
            let lie = cheat.invented(job);
            let mut faces = [root, lie];
            if cheat.rng.random() {
                faces.reverse();
            }
            for face in faces {
                let face = receipt(world, job, attempt, face, "two-faced", 1);
                cheat.units.push(face.unit());
                shout_signed(world, node, Topic::Receipts, face);
            }
            cheat.sent += 1;
            true
        }
        Fraud::TwoFaced | Fraud::Thief | Fraud::Retoucher | Fraud::Forger => false,
    };
    world.nodes[node].cheat = Some(cheat);
    taken
}

/// A node heard a receipt, before its engine did.
pub(super) fn overheard(world: &mut World, node: usize, bytes: &Rc<Bytes>) {
    let begun = world.nodes[node].acknowledged.len();
    let own = world.nodes[node].miner();
    let Some(heard) = bytes.receipt.as_ref().map(|semantic| semantic.receipt().clone()) else { return };
    let Some(mut cheat) = world.nodes[node].cheat.take() else { return };
    if begun >= cheat.after && heard.miner != own && bytes.topic == Topic::Receipts {
        match cheat.fraud {
            Fraud::Thief => {
                shout_signed(world, node, bytes.topic, Receipt { miner: own, ..heard });
                cheat.sent += 1;
            }
            Fraud::Retoucher => {
                let retouched = Receipt { time_ms: heard.time_ms + 1, ..heard };
                world.shout(node, bytes.topic, &retouched.to_wire());
                cheat.copies.push(retouched.to_wire());
                cheat.sent += 1;
            }
            Fraud::Forger => {
                let draft = Draft::new(heard);
                let sig = world.nodes[node].key.sign(&draft.prehash());
                let forged = draft.with_signature(sig);
                world.shout(node, bytes.topic, &forged.to_wire());
                cheat.copies.push(forged.to_wire());
                cheat.sent += 1;
            }
            Fraud::Inventor | Fraud::Varier | Fraud::TwoFaced => {}
        }
    }
    world.nodes[node].cheat = Some(cheat);
}
