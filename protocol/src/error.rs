//! What can be wrong with a receipt, an enum a stage, and what its deliverer pays (spec §5).

use thiserror::Error;

/// What a fault costs the peer that delivered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Every honest node sees the same fault: the forwarder loses score.
    Reject,
    /// It may turn out right soon: kept back, bounded by peer and time, then ignored.
    Hold,
    /// Nobody's provable fault: not forwarded, nobody pays.
    Ignore,
}

/// Stage 1: bytes that are no canonical receipt of this network. Always [`Consequence::Reject`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StructuralFault {
    /// Larger than any receipt.
    #[error("{size} bytes, a receipt has at most {max}")]
    TooLarge {
        /// What came.
        size: usize,
        /// What is allowed.
        max: usize,
    },
    /// Not decodable, or not of the receipt's form.
    #[error("not a receipt: {why}")]
    Malformed {
        /// What the decoder stumbled over.
        why: &'static str,
    },
    /// Another encoding of some value than the one that is allowed.
    #[error("not the canonical encoding of its value")]
    NotCanonical,
    /// A text field is empty, too long, or has a character outside its set.
    #[error("{field} must be 1 to 128 printable ASCII characters without quote and backslash")]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// A hex field is not lower-case hex of its length.
    #[error("{field} must be {digits} lower-case hex digits")]
    Hex {
        /// Which field.
        field: &'static str,
        /// Its length.
        digits: usize,
    },
    /// An integer is 2^53 or more.
    #[error("{field} must be below 2^53")]
    Integer {
        /// Which field.
        field: &'static str,
    },
    /// The sizes are no shape.
    #[error("the sizes are not a shape that the protocol allows")]
    Shape,
    /// The receipt is of another network.
    #[error("the receipt is of another network")]
    Network,
    /// The shape is not the network's.
    #[error("the shape is not the network's")]
    ForeignShape,
    /// Not the work function of the network.
    #[error("kernel_ver is not {expected}")]
    Kernel {
        /// The only accepted name.
        expected: &'static str,
    },
}

/// Stage 2: the signature does not stand. Always [`Consequence::Reject`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SemanticFault {
    /// The miner's key is no point of secp256k1.
    #[error("the miner's key is not a point of the curve")]
    Key,
    /// r or s is out of range.
    #[error("the signature is malformed")]
    Malformed,
    /// s is in the upper half.
    #[error("the signature has a high s")]
    HighS,
    /// It is not a signature of this text by this key.
    #[error("the signature does not verify")]
    Mismatch,
}

/// Stage 3: the receipt does not fit the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContextFault {
    /// Hold, asking for the parent meanwhile.
    #[error("its head is unknown")]
    UnknownParent,
    /// Reject: every node computes the same target.
    #[error("the root is above the share target of its head")]
    AboveShareTarget,
    /// Reject.
    #[error("epoch_id is not its head's height plus one")]
    Epoch,
    /// Reject.
    #[error("the timestamp is not past the median of its ancestors")]
    MedianTime,
    /// Hold until the clock has come closer.
    #[error("the timestamp is more than 15 s ahead of the clock")]
    AheadOfClock,
    /// Reject: heads travel on the heads topic and nowhere else.
    #[error("it came on the wrong topic")]
    WrongTopic,
    /// Ignore.
    #[error("its head is too far below the tip")]
    Stale,
    /// Ignore.
    #[error("its unit is known with this root")]
    Seen,
    /// Ignore.
    #[error("its miner is banned")]
    Banned,
    /// Ignore: its deliverer has asked for too many audits.
    #[error("over the deliverer's budget of audits")]
    OverBudget,
    /// Ignore: the pool of the undecided is full.
    #[error("too many receipts are waiting for their audit")]
    PoolFull,
}

impl ContextFault {
    /// What the deliverer pays.
    pub fn consequence(self) -> Consequence {
        match self {
            Self::AboveShareTarget | Self::Epoch | Self::MedianTime | Self::WrongTopic => Consequence::Reject,
            Self::UnknownParent | Self::AheadOfClock => Consequence::Hold,
            Self::Stale | Self::Seen | Self::Banned | Self::OverBudget | Self::PoolFull => Consequence::Ignore,
        }
    }
    /// A short, stable word for counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownParent => "unknown_parent",
            Self::AboveShareTarget => "above_share_target",
            Self::Epoch => "epoch",
            Self::MedianTime => "median_time",
            Self::AheadOfClock => "ahead_of_clock",
            Self::WrongTopic => "wrong_topic",
            Self::Stale => "stale",
            Self::Seen => "seen",
            Self::Banned => "banned",
            Self::OverBudget => "over_budget",
            Self::PoolFull => "pool_full",
        }
    }
}

/// Stage 4: recomputation gives another root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the attempt's root is {computed}, the receipt claims {claimed}")]
pub struct AuditFault {
    /// What the receipt says.
    pub claimed: crate::types::Root,
    /// What the attempt gives.
    pub computed: crate::types::Root,
}
