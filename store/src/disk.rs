//! What lies under the store's one implementation: ordered trees that take a set of changes whole or not at all, and a journal's bytes.
//!
//! Two of them exist: [`crate::sled`]'s files and [`crate::memory`]'s maps. Neither knows what a row means.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::StoreFault;
use crate::tables::Table;

/// New values by tree and key; `None` removes.
pub(crate) type Changes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// Keys to visit.
pub(crate) type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// In which order keys are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Up,
    Down,
}

/// Whether to visit more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    More,
    Stop,
}

/// Sees a key and its value.
pub(crate) type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<Visit, StoreFault> + 'a;

/// Trees and a journal.
pub(crate) trait Disk: Send + Sync {
    /// One value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault>;
    /// Visits keys of a range that is not empty by its bounds.
    fn scan(&self, table: Table, range: KeyRange, order: Order, visit: &mut Visitor<'_>) -> Result<(), StoreFault>;
    /// All or nothing, also over a crash. Not durable before [`Disk::sync`].
    fn apply(&self, changes: &Changes) -> Result<(), StoreFault>;
    /// Returns when everything applied is on the disk.
    fn sync(&self) -> Result<(), StoreFault>;
    /// Appends to the journal and returns when it is on the disk.
    fn journal_append(&self, bytes: &[u8]) -> Result<(), StoreFault>;
    /// Replaces the journal whole or not at all, and returns when it is on the disk.
    fn journal_replace(&self, bytes: &[u8]) -> Result<(), StoreFault>;
    /// [`StoreFault::Full`] when nothing more can be written.
    fn room(&self) -> Result<(), StoreFault> {
        Ok(())
    }
    /// Told when a value proved wrong, so that the next open sets the trees aside.
    fn suspect(&self, what: &str);
}

/// Every key.
pub(crate) fn everything() -> KeyRange {
    (Bound::Unbounded, Bound::Unbounded)
}

/// Every key that begins so.
pub(crate) fn prefix(prefix: &[u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

/// The part of a range behind a key, in the order of the visit; `None` when nothing can be left.
pub(crate) fn behind(range: KeyRange, order: Order, key: &[u8]) -> Option<KeyRange> {
    let inside = |bound: &Bound<Vec<u8>>, below: bool| match bound {
        Bound::Unbounded => true,
        Bound::Included(b) => {
            if below {
                key < b.as_slice()
            } else {
                key > b.as_slice()
            }
        }
        Bound::Excluded(b) => {
            if below {
                key < b.as_slice()
            } else {
                key > b.as_slice()
            }
        }
    };
    let (start, end) = range;
    match order {
        // A key below the range leaves the range as it is; one at or above its end leaves nothing.
        Order::Up if !inside(&end, true) => None,
        Order::Up => Some((if inside(&start, true) && start != Bound::Unbounded { start } else { Bound::Excluded(key.to_vec()) }, end)),
        Order::Down if !inside(&start, false) => None,
        Order::Down => Some((start, if inside(&end, false) && end != Bound::Unbounded { end } else { Bound::Excluded(key.to_vec()) })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A page behind a key is what filtering gives, and its bounds never cross (a map panics on crossed bounds).
        #[test]
        fn behind_is_a_filter(start in "[a-c]{1,2}", key in "[a-c]{0,3}", all in proptest::collection::btree_set("[a-c]{1,3}", 0..30)) {
            let tree: BTreeMap<Vec<u8>, ()> = all.iter().map(|k| (k.as_bytes().to_vec(), ())).collect();
            for order in [Order::Up, Order::Down] {
                let want: Vec<_> = tree.keys().filter(|k| k.starts_with(start.as_bytes())
                    && if order == Order::Up { k.as_slice() > key.as_bytes() } else { k.as_slice() < key.as_bytes() }).cloned().collect();
                let got: Vec<_> = behind(prefix(start.as_bytes()), order, key.as_bytes())
                    .map(|range| tree.range::<Vec<u8>, _>(range).map(|(k, ())| k.clone()).collect()).unwrap_or_default();
                prop_assert_eq!(got, want);
            }
        }
    }

    #[test]
    fn a_prefix_of_all_ones_ends_nowhere() {
        assert_eq!(prefix(&[0xff, 0xff]), (Bound::Included(vec![0xff, 0xff]), Bound::Unbounded));
        assert_eq!(prefix(&[1, 0xff]), (Bound::Included(vec![1, 0xff]), Bound::Excluded(vec![2])));
    }
}
