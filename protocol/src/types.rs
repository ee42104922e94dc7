//! The nouns of the protocol as types of their own, so that a nonce is never taken for a height and a root never for an id.
//!
//! None of these checks a signature or a chain rule; they only hold values that are in range.

use alloc::string::String;
use core::fmt;

/// 256-bit unsigned integers: roots read as lottery tickets, targets, work and credit.
pub type U256 = ruint::Uint<256, 4>;

/// Integers in receipts stay below 2^53, so that any JSON reader holds them exactly (spec §3).
pub const INTEGER_LIMIT: u64 = 1 << 53;

/// Bytes that do not spell the value they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} lower-case hex digits")]
pub struct HexFault {
    /// How many digits the value has.
    pub expected: usize,
}

/// Reads exactly `N` bytes of lower-case hex; upper case is refused, so that a text has one spelling.
pub fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], HexFault> {
    let fault = HexFault { expected: 2 * N };
    let mut out = [0u8; N];
    if text.len() != 2 * N || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(fault);
    }
    hex::decode_to_slice(text, &mut out).map_err(|_| fault)?;
    Ok(out)
}

macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads the lower-case hex form.
            pub fn from_hex(text: &str) -> Result<Self, HexFault> {
                parse_hex(text).map(Self)
            }
            /// The lower-case hex form.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }
    };
}

bytes_type!(
    /// A work root (spec §1.6): the lottery ticket of an attempt, and, when it wins, the name of a head.
    Root, 32
);
bytes_type!(
    /// What an attempt is bound to: the attempt seed (spec §1.1, §3). One unit earns once.
    UnitId, 32
);
bytes_type!(
    /// BLAKE3 of a receipt's signing text (spec §3).
    ReceiptId, 32
);
bytes_type!(
    /// The full id of a network (spec §4).
    NetworkId, 32
);
bytes_type!(
    /// The first eight bytes of a network id, as receipts and topics carry it.
    NetworkTag, 8
);
bytes_type!(
    /// A compressed secp256k1 key as it travels. Whether it is a point of the curve is stage 2's question.
    PublicKey, 33
);
bytes_type!(
    /// A compact ECDSA signature, r ‖ s.
    Signature, 64
);

impl Root {
    /// The root as the integer that targets are compared with: big-endian (spec §1.6).
    pub fn ticket(&self) -> U256 {
        U256::from_be_bytes(self.0)
    }
}

/// Milliseconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Later by `ms`, saturating.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The number of heads below a head; genesis has height 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Height(pub u64);

impl Height {
    /// The height of a child.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// An attempt's number under one head, miner and timestamp: below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(u64);

impl Nonce {
    /// `None` from 2^53 on.
    pub fn new(value: u64) -> Option<Self> {
        (value < INTEGER_LIMIT).then_some(Self(value))
    }
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A v2 shape: activations `m × k`, layers `n × k` and `n × n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    m: u32,
    n: u32,
    k: u32,
}

impl Shape {
    /// The shape of the `dev` network: 16×256×256.
    pub const DEVNET: Self = Self { m: 16, n: 256, k: 256 };
    /// The shape of the `main` network: 16×4096×4096.
    pub const STANDARD: Self = Self { m: 16, n: 4096, k: 4096 };

    /// `None` unless m is a multiple of 16 in 16..=8192 and n and k are powers of two in 256..=8192 (spec §1).
    pub fn new(m: u32, n: u32, k: u32) -> Option<Self> {
        let wide = |x: u32| x.is_power_of_two() && (256..=8192).contains(&x);
        (m.is_multiple_of(16) && (16..=8192).contains(&m) && wide(n) && wide(k)).then_some(Self { m, n, k })
    }
    /// Rows of activations.
    pub fn m(self) -> u32 {
        self.m
    }
    /// Output neurons of both layers.
    pub fn n(self) -> u32 {
        self.n
    }
    /// Columns of activations.
    pub fn k(self) -> u32 {
        self.k
    }
    /// Right shifts after the first and the second product: `[7 + ⌊log2 k / 2⌋, 6 + ⌊log2 n / 2⌋]` (spec §1.4).
    pub fn shifts(self) -> [u32; 2] {
        [7 + self.k.ilog2() / 2, 6 + self.n.ilog2() / 2]
    }
    /// Operations of one attempt: 2·m·k·n + 2·m·n·n (spec §1).
    pub fn ops(self) -> u64 {
        let (m, n, k) = (u64::from(self.m), u64::from(self.n), u64::from(self.k));
        2 * m * k * n + 2 * m * n * n
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

/// Everything that a v2 attempt depends on (spec §1.1). Its seed is the unit's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The head that it builds on.
    pub prev_hash: Root,
    /// Whose attempt it is.
    pub miner: PublicKey,
    /// Which of the miner's attempts.
    pub nonce: Nonce,
    /// The miner's clock when the job was made.
    pub timestamp: Millis,
    /// The network's shape.
    pub shape: Shape,
}
