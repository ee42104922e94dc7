//! Memory for weights: zeroed, aligned to cache lines.

use super::layout::Line;

/// `len` zeroed lines.
pub(super) fn zeroed(len: usize) -> Vec<Line> {
    vec![Line::ZERO; len]
}
