//! Who earned what: pure arithmetic on rows. The rows live in the store; the engine says when to apply and when to undo (spec §4).

use crate::types::{PublicKey, U256};

/// A miner's sums in this node's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerRow {
    /// Expected operations of the shares that earn.
    pub credit: U256,
    /// How many shares earn.
    pub shares: u64,
    /// How many of them are heads of the main chain.
    pub heads: u64,
    /// How many shares a ban took away.
    pub void_shares: u64,
}

/// One share's effect on its miner's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose row.
    pub miner: PublicKey,
    /// What the share earns.
    pub weight: U256,
    /// Whether it is a head of the main chain.
    pub head: bool,
}

impl LedgerRow {
    /// The share earns.
    pub fn apply(&mut self, entry: &Entry) {
        self.credit = self.credit.saturating_add(entry.weight);
        self.shares += 1;
        self.heads += u64::from(entry.head);
    }
    /// The share earns no more; exactly the reverse of [`LedgerRow::apply`].
    pub fn undo(&mut self, entry: &Entry) {
        self.credit = self.credit.saturating_sub(entry.weight);
        self.shares = self.shares.saturating_sub(1);
        self.heads = self.heads.saturating_sub(u64::from(entry.head));
    }
    /// A ban voids all credit, also that of shares that are below retention (spec §5).
    pub fn void(&mut self) {
        self.void_shares += self.shares;
        self.credit = U256::ZERO;
        self.shares = 0;
        self.heads = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_reverses_apply() {
        let entry = Entry { miner: PublicKey([2; 33]), weight: U256::from(7), head: true };
        let before = LedgerRow { credit: U256::from(5), shares: 2, heads: 1, void_shares: 3 };
        let mut row = before;
        row.apply(&entry);
        assert_ne!(row, before);
        row.undo(&entry);
        assert_eq!(row, before);
    }
}
