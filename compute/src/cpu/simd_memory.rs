//! Memory for weights: zeroed, aligned to cache lines, on huge pages where the system grants them.
//!
//! Weights of `standard` are 32 MiB and are read from end to end for every group: 8,192 small pages would not stay in any TLB.
#![allow(unsafe_code)]

use super::layout::Line;

/// Below this, huge pages have nothing to give.
const WORTH_ADVISING: usize = 4 << 20;

/// `len` zeroed lines.
pub(super) fn zeroed(len: usize) -> Vec<Line> {
    let mut lines = Vec::with_capacity(len);
    advise(lines.as_mut_ptr(), len * size_of::<Line>());
    lines.resize(len, Line::ZERO);
    lines
}

/// Asks for huge pages before the memory is touched. An answer of no costs speed only, so it is not looked at.
#[cfg(target_os = "linux")]
fn advise(lines: *mut Line, bytes: usize) {
    const PAGE: usize = 4096;
    if bytes < WORTH_ADVISING {
        return;
    }
    let skip = lines.addr().next_multiple_of(PAGE) - lines.addr();
    let len = (bytes - skip) / PAGE * PAGE;
    // SAFETY: the range lies in an allocation of `bytes` bytes that is this function's caller's alone, and begins on a page;
    // MADV_HUGEPAGE changes neither its contents nor what may be done with it.
    unsafe { libc::madvise(lines.cast::<u8>().add(skip).cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: *mut Line, _: usize) {}
