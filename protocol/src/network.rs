//! A network is eleven numbers (spec §4). Their canonical CBOR gives the id, the id gives genesis; no two testnets share either.

use alloc::vec::Vec;

use crate::target::{Bits, BitsFault};
use crate::types::{Millis, NetworkId, NetworkTag, Root, Shape};

/// The consensus version, first element of the id's preimage.
pub const VERSION: u64 = 2;

/// `DK(name, x)`'s context (spec, notation).
pub fn derive_key_context(name: &str) -> alloc::string::String {
    alloc::format!("tops-node 2026-11 v2 {name}")
}

/// The rules of one network. Only consistent values exist: see [`NetworkSpec::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    fields: Fields,
    id: NetworkId,
    genesis: Root,
}

/// The consensus fields as plain numbers, in the order of the id's preimage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// Rows of activations.
    pub m: u32,
    /// Output neurons.
    pub n: u32,
    /// Columns of activations.
    pub k: u32,
    /// Seconds between heads that the schedule aims at.
    pub spacing_secs: u32,
    /// ASERT half-life.
    pub half_life_secs: u32,
    /// Compact target of height 1.
    pub genesis_bits: u32,
    /// The easiest compact target that the schedule may reach.
    pub easiest_bits: u32,
    /// A share's target is the head's times 2 to this power.
    pub share_log2: u32,
    /// How many heads below the tip a gossiped share may be keyed.
    pub stale_window: u32,
    /// When the network began, Unix milliseconds.
    pub genesis_time_ms: u64,
}

/// Why eleven numbers are no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkFault {
    /// The shape breaks spec §1.
    #[error("the shape {m}x{n}x{k} is not allowed: m must be a multiple of 16 in 16..=8192, n and k powers of two in 256..=8192")]
    Shape {
        /// Rows.
        m: u32,
        /// Neurons.
        n: u32,
        /// Columns.
        k: u32,
    },
    /// A compact target is unusable.
    #[error(transparent)]
    Bits(#[from] BitsFault),
    /// The genesis target is easier than the easiest.
    #[error("genesis_bits is an easier target than easiest_bits")]
    GenesisTooEasy,
    /// A number is out of its range.
    #[error("{field} must be in {low}..={high}")]
    Range {
        /// Its name.
        field: &'static str,
        /// Smallest allowed.
        low: u64,
        /// Largest allowed.
        high: u64,
    },
}

impl NetworkSpec {
    /// Checks the fields and computes id and genesis.
    pub fn new(fields: Fields) -> Result<Self, NetworkFault> {
        let Fields { m, n, k, .. } = fields;
        Shape::new(m, n, k).ok_or(NetworkFault::Shape { m, n, k })?;
        let range = |field, value: u64, low, high| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(NetworkFault::Range { field, low, high }) }
        };
        range("spacing_secs", fields.spacing_secs.into(), 1, 86_400)?;
        range("half_life_secs", fields.half_life_secs.into(), 1, 31_536_000)?;
        range("share_log2", fields.share_log2.into(), 0, 16)?;
        range("stale_window", fields.stale_window.into(), 1, 64)?;
        range("genesis_time_ms", fields.genesis_time_ms, 0, crate::types::INTEGER_LIMIT - 1)?;
        let (genesis_bits, easiest) = (Bits::new(fields.genesis_bits)?, Bits::new(fields.easiest_bits)?);
        if genesis_bits.target() > easiest.target() {
            return Err(NetworkFault::GenesisTooEasy);
        }
        let id = NetworkId(blake3::derive_key(&derive_key_context("network"), &preimage(&fields)));
        let genesis = Root(blake3::derive_key(&derive_key_context("genesis"), &id.0));
        Ok(Self { fields, id, genesis })
    }

    fn preset(fields: Fields) -> Self {
        match Self::new(fields) {
            Ok(spec) => spec,
            Err(_) => unreachable!("the presets are within their ranges; a test makes each"),
        }
    }

    /// The preset `main` (spec §4).
    pub fn main() -> Self {
        Self::preset(Fields {
            m: 16,
            n: 4096,
            k: 4096,
            spacing_secs: 15,
            half_life_secs: 1_800,
            genesis_bits: 0x1e00_ffff,
            easiest_bits: 0x1e0f_ffff,
            share_log2: 6,
            stale_window: 3,
            genesis_time_ms: 1_795_132_800_000,
        })
    }

    /// The preset `dev` (spec §4).
    pub fn dev() -> Self {
        Self::preset(Fields {
            m: 16,
            n: 256,
            k: 256,
            spacing_secs: 4,
            half_life_secs: 60,
            genesis_bits: 0x1f3f_ffff,
            easiest_bits: 0x2000_ffff,
            share_log2: 4,
            stale_window: 3,
            genesis_time_ms: 0,
        })
    }

    /// The plain numbers.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }
    /// The network's id.
    pub fn id(&self) -> NetworkId {
        self.id
    }
    /// The id's first eight bytes.
    pub fn tag(&self) -> NetworkTag {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.id.0[..8]);
        NetworkTag(tag)
    }
    /// The root that stands at height 0.
    pub fn genesis(&self) -> Root {
        self.genesis
    }
    /// The time of genesis.
    pub fn genesis_time(&self) -> Millis {
        Millis(self.fields.genesis_time_ms)
    }
    /// The one shape of this network.
    pub fn shape(&self) -> Shape {
        let Fields { m, n, k, .. } = self.fields;
        match Shape::new(m, n, k) {
            Some(shape) => shape,
            None => unreachable!("checked by NetworkSpec::new"),
        }
    }
    /// Seconds between heads that the schedule aims at.
    pub fn spacing_secs(&self) -> u32 {
        self.fields.spacing_secs
    }
    /// ASERT half-life in seconds.
    pub fn half_life_secs(&self) -> u32 {
        self.fields.half_life_secs
    }
    /// Target of height 1.
    pub fn genesis_bits(&self) -> Bits {
        match Bits::new(self.fields.genesis_bits) {
            Ok(bits) => bits,
            Err(_) => unreachable!("checked by NetworkSpec::new"),
        }
    }
    /// The easiest target.
    pub fn easiest_bits(&self) -> Bits {
        match Bits::new(self.fields.easiest_bits) {
            Ok(bits) => bits,
            Err(_) => unreachable!("checked by NetworkSpec::new"),
        }
    }
    /// Log2 of share target over head target.
    pub fn share_log2(&self) -> u32 {
        self.fields.share_log2
    }
    /// Heads below the tip within which gossiped shares are taken.
    pub fn stale_window(&self) -> u64 {
        self.fields.stale_window.into()
    }
}

/// `CBOR array(11) [2, m, n, k, …]` (spec §4), shortest heads.
pub fn preimage(fields: &Fields) -> Vec<u8> {
    let values: [u64; 11] = [
        VERSION,
        fields.m.into(),
        fields.n.into(),
        fields.k.into(),
        fields.spacing_secs.into(),
        fields.half_life_secs.into(),
        fields.genesis_bits.into(),
        fields.easiest_bits.into(),
        fields.share_log2.into(),
        fields.stale_window.into(),
        fields.genesis_time_ms,
    ];
    crate::codec::encode(&values)
}
