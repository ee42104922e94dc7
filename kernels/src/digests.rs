//! BLAKE3 digests of the binaries. Written by `kernels/build`; not edited by hand.

/// `bin/sm_90a.cubin`
pub const SM_90A: &str = "d5dc0a3a689435c88057696fff3a4562ad6eceb2d6d42ea0ecbbe83846150ee2";
/// `bin/generic_sm80.ptx`
pub const GENERIC_SM80: &str = "5fafa03b8fbf4ed64fdc96a62f85e9c4764d3f2adea0897bcf02c0d213d100af";
/// `bin/generic_sm61.ptx`
pub const GENERIC_SM61: &str = "9ec6c6dc89cab2cd378802c3ce3b2f50a4fa8a98db328ffb8695a52e9a2fccc5";
