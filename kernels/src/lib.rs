//! The forge: sources of device code and the binaries built from them, with digests.
//!
//! ```text
//! cuda/*.cu, *.cuh ──kernels/build (pinned NVRTC)──▶ bin/* + src/digests.rs ──include_bytes!──▶ [`cuda::Image`]
//! ```
//!
//! This crate only holds bytes and says what is in them: which image a device takes, which entry points it has, what each expects and
//! how large its buffers are. It never loads, launches or allocates, has no dependencies and no unsafe code. CI rebuilds the binaries
//! from the sources and compares (`kernels/build --check`).

pub mod cuda;
mod digests;
pub mod opencl;
