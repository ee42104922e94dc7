//! The forms that answers and parameters are made of, each with its JSON and its schema in one place.

use serde::Serialize;
use serde_json::json;
use tops_protocol::types::{INTEGER_LIMIT, NetworkId};
use tops_protocol::{Millis, NetworkTag, PublicKey, ReceiptId, Root, U256, UnitId};
use tops_store::{Cursor, PAGE_MAX};
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::{IntoParams, ToSchema};

use super::PAGE_DEFAULT;

/// 32 bytes as 64 lower-case hex digits: a root, a unit, a receipt's id, a network's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(pattern = "^[0-9a-f]{64}$")]
pub(super) struct Hash(String);

macro_rules! hash_of {
    ($($type:ty),+) => { $(impl From<$type> for Hash { fn from(bytes: $type) -> Self { Self(bytes.to_hex()) } })+ };
}
hash_of!(Root, UnitId, ReceiptId, NetworkId);

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }
}

/// A compressed secp256k1 key as 66 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(pattern = "^[0-9a-f]{66}$")]
pub(super) struct Key(String);

impl From<PublicKey> for Key {
    fn from(key: PublicKey) -> Self {
        Self(key.to_hex())
    }
}

/// 8 bytes as 16 lower-case hex digits: the beginning of a network's id, a digest of bans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(pattern = "^[0-9a-f]{16}$")]
pub(super) struct Tag(String);

impl From<NetworkTag> for Tag {
    fn from(tag: NetworkTag) -> Self {
        Self(tag.to_hex())
    }
}

impl From<[u8; 8]> for Tag {
    fn from(bytes: [u8; 8]) -> Self {
        Self(hex::encode(bytes))
    }
}

/// A number of up to 256 bits as a decimal string, since JSON's numbers are too short for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(pattern = "^(0|[1-9][0-9]{0,77})$")]
pub(super) struct Decimal(String);

impl From<U256> for Decimal {
    fn from(number: U256) -> Self {
        Self(number.to_string())
    }
}

/// Bytes as lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(pattern = "^([0-9a-f]{2})*$")]
pub(super) struct Hex(String);

impl From<&[u8]> for Hex {
    fn from(bytes: &[u8]) -> Self {
        Self(hex::encode(bytes))
    }
}

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(minimum = 0)]
pub(super) struct Stamp(u64);

impl From<Millis> for Stamp {
    fn from(at: Millis) -> Self {
        Self(at.0)
    }
}

/// Where the next page begins, as `cursor` of the next request. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(pattern = "^([0-9a-f]{2}){1,73}$")]
pub(super) struct Next(String);

impl From<Cursor> for Next {
    fn from(cursor: Cursor) -> Self {
        Self(cursor.to_string())
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Refusal {
    /// One sentence.
    pub(super) error: String,
}

/// A parameter of a query string: how it is documented and what is said when it is wrong.
pub(super) struct Param {
    pub(super) name: &'static str,
    /// Ends the sentence "it must be …".
    pub(super) what: &'static str,
    pub(super) about: &'static str,
    schema: fn() -> ObjectBuilder,
}

fn text(pattern: &'static str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

fn whole() -> ObjectBuilder {
    let format = Some(SchemaFormat::KnownFormat(KnownFormat::Int64));
    ObjectBuilder::new().schema_type(Type::Integer).format(format).minimum(Some(0)).maximum(Some(INTEGER_LIMIT - 1))
}

/// Reads what [`whole`] describes: every JSON reader holds such a number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n| *n < INTEGER_LIMIT)
}

pub(super) const EPOCH: Param = Param { name: "epoch", what: "a number below 2^53", about: "Only those of this epoch.", schema: whole };
pub(super) const MINER: Param = Param {
    name: "miner",
    what: "a compressed key as 66 lower-case hex digits",
    about: "Only those of this miner.",
    schema: || text("^[0-9a-f]{66}$"),
};
pub(super) const CURSOR: Param = Param {
    name: "cursor",
    what: "the `next` of an earlier page",
    about: "Begin after an earlier page: its `next`.",
    schema: || text("^([0-9a-f]{2}){1,73}$"),
};
pub(super) const LIMIT: Param = Param {
    name: "limit",
    what: "a number in 1..=256",
    about: "At most so many rows.",
    schema: || whole().minimum(Some(1)).maximum(Some(PAGE_MAX)).default(Some(json!(PAGE_DEFAULT))),
};
const _: () = assert!(PAGE_MAX == 256, "say so in the words of `limit`");
pub(super) const FROM: Param =
    Param { name: "from", what: "a height below 2^53", about: "The height to begin at; left out: the tip.", schema: whole };
pub(super) const STATE: Param = Param {
    name: "state",
    what: "waiting, due, delivered, dead or void",
    about: "Only those in this state.",
    schema: || {
        let words = ["waiting", "due", "delivered", "dead", "void"];
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).default(Some(json!("due")))
    },
};

/// The parameters that a path takes.
pub(super) trait Known {
    const ALL: &'static [&'static Param];
}

macro_rules! parameters {
    ($($(#[doc = $doc:expr])+ $name:ident: $($param:ident),*;)+) => { $(
        $(#[doc = $doc])+
        pub(super) struct $name;
        impl Known for $name {
            const ALL: &'static [&'static Param] = &[$(&$param),*];
        }
        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                documented(Self::ALL)
            }
        }
    )+ };
}

fn documented(params: &[&Param]) -> Vec<Parameter> {
    let one = |param: &&Param| {
        ParameterBuilder::new()
            .name(param.name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(param.about))
            .schema(Some((param.schema)()))
            .build()
    };
    params.iter().map(one).collect()
}

parameters! {
    /// No parameter.
    Nothing:;
    /// `/v1/receipts`.
    OfReceipts: EPOCH, MINER, CURSOR, LIMIT;
    /// `/v1/heads`.
    OfHeads: FROM, LIMIT;
    /// `/v1/ledger`.
    OfLedger: MINER, CURSOR, LIMIT;
    /// `/v1/outbox`.
    OfOutbox: STATE, CURSOR, LIMIT;
}
