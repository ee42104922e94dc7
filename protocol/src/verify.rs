//! Validation as types: `Structural → Semantic → Contextual → Audited` (spec §5). A value of a later stage exists only when the
//! earlier ones passed, and no stage can be skipped: the constructors check.
//!
//! The command `verify`, `POST /verify`, the gossip workers and the engine all come through here.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::codec;
use crate::error::{AuditFault, ContextFault, SemanticFault, StructuralFault};
use crate::keys;
use crate::network::NetworkSpec;
use crate::receipt::{KERNEL_V2, Receipt, prehash};
use crate::target;
use crate::types::{Attempt, Height, Millis, ReceiptId, Root, U256, UnitId};

/// How far a timestamp may be ahead of the local clock (spec §4).
pub const CLOCK_AHEAD_MS: u64 = 15_000;

/// Stage 1 passed: canonical, in range, of this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structural {
    receipt: Receipt,
    wire: Vec<u8>,
}

impl Structural {
    /// Reads the wire form and checks that it is of `network`.
    pub fn from_wire(bytes: &[u8], network: &NetworkSpec) -> Result<Self, StructuralFault> {
        let receipt = codec::receipt_from_wire(bytes)?;
        Self::check_kernel(&receipt)?;
        if receipt.network != network.tag() {
            return Err(StructuralFault::Network);
        }
        if receipt.shape != network.shape() {
            return Err(StructuralFault::ForeignShape);
        }
        Ok(Self { receipt, wire: bytes.to_vec() })
    }

    /// Takes a receipt whose network is not at hand (a file, an HTTP body): everything but the network is checked.
    pub fn of_any_network(receipt: Receipt) -> Result<Self, StructuralFault> {
        Self::check_kernel(&receipt)?;
        let wire = receipt.to_wire();
        if wire.len() > codec::RECEIPT_WIRE_MAX {
            return Err(StructuralFault::TooLarge { size: wire.len(), max: codec::RECEIPT_WIRE_MAX });
        }
        Ok(Self { receipt, wire })
    }

    fn check_kernel(receipt: &Receipt) -> Result<(), StructuralFault> {
        if receipt.kernel_ver.as_str() == KERNEL_V2 { Ok(()) } else { Err(StructuralFault::Kernel { expected: KERNEL_V2 }) }
    }

    /// The receipt, its signature unchecked.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Stage 2: curve point and signature.
    pub fn semantic(self) -> Result<Semantic, SemanticFault> {
        let id = self.receipt.id();
        keys::verify(&self.receipt.miner, &prehash(&id), &self.receipt.sig)?;
        Ok(self.seal(id))
    }

    /// What this node wrote itself after stage 2 needs no second look at its signature: a start reads many thousands.
    pub(crate) fn known_signed(self) -> Semantic {
        let id = self.receipt.id();
        self.seal(id)
    }

    fn seal(self, id: ReceiptId) -> Semantic {
        let unit = self.receipt.unit();
        Semantic(Arc::new(Signed { receipt: self.receipt, wire: self.wire, id, unit }))
    }
}

/// Stage 2 passed: the miner signed exactly this. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Semantic(Arc<Signed>);

#[derive(Debug, PartialEq, Eq)]
struct Signed {
    receipt: Receipt,
    wire: Vec<u8>,
    id: ReceiptId,
    unit: UnitId,
}

/// What the chain knows of a head, for whatever is keyed on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentFacts {
    /// The head.
    pub root: Root,
    /// Its height.
    pub height: Height,
    /// The target that the next head must meet.
    pub head_target: U256,
    /// The target that a share on it must meet.
    pub share_target: U256,
    /// A timestamp must be greater than this (spec §4, median rule).
    pub median: Millis,
}

impl Semantic {
    /// The receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.0.receipt
    }
    /// Its canonical wire form.
    pub fn wire(&self) -> &[u8] {
        &self.0.wire
    }
    /// Its id.
    pub fn id(&self) -> ReceiptId {
        self.0.id
    }
    /// Its unit.
    pub fn unit(&self) -> UnitId {
        self.0.unit
    }
    /// What to recompute.
    pub fn attempt(&self) -> Attempt {
        self.0.receipt.attempt()
    }
    /// The claimed root.
    pub fn root(&self) -> Root {
        self.0.receipt.work_root
    }
    /// When the timestamp will be close enough to the clock; `None` when it is already.
    pub fn too_early_until(&self, now: Millis) -> Option<Millis> {
        let due = Millis(self.0.receipt.timestamp.0.saturating_sub(CLOCK_AHEAD_MS));
        (due > now).then_some(due)
    }

    /// Stage 3, the part that every node judges the same: target, epoch, median time.
    pub fn contextual(self, parent: &ParentFacts) -> Result<Contextual, ContextFault> {
        let r = &self.0.receipt;
        if r.prev_hash != parent.root {
            return Err(ContextFault::UnknownParent);
        }
        let ticket = r.work_root.ticket();
        if ticket > parent.share_target {
            return Err(ContextFault::AboveShareTarget);
        }
        if r.epoch_id != parent.height.next().0 {
            return Err(ContextFault::Epoch);
        }
        if r.timestamp <= parent.median {
            return Err(ContextFault::MedianTime);
        }
        let weight = share_weight(parent.share_target, r.shape.ops());
        let head = ticket <= parent.head_target;
        Ok(Contextual { semantic: self, head, weight })
    }
}

/// What a share earns: the attempts that its target stands for, times an attempt's operations (spec §4).
pub fn share_weight(share_target: U256, ops: u64) -> U256 {
    target::work(share_target).saturating_mul(U256::from(ops))
}

/// Stage 3 passed: it fits the head that it is keyed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contextual {
    semantic: Semantic,
    head: bool,
    weight: U256,
}

impl Contextual {
    /// The signed receipt.
    pub fn semantic(&self) -> &Semantic {
        &self.semantic
    }
    /// Whether its root also meets the head target.
    pub fn is_head(&self) -> bool {
        self.head
    }
    /// What it earns if it counts: expected operations.
    pub fn weight(&self) -> U256 {
        self.weight
    }
    /// Stage 4: compares the claim with a recomputed root.
    pub fn audited(self, computed: Root) -> Result<Audited, AuditFault> {
        let claimed = self.semantic.root();
        if claimed == computed { Ok(Audited(self)) } else { Err(AuditFault { claimed, computed }) }
    }
}

/// Stage 4 passed: the attempt was recomputed and gives the claimed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited(Contextual);

impl Audited {
    /// What was audited.
    pub fn contextual(&self) -> &Contextual {
        &self.0
    }
}
