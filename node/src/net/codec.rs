//! The sync protocol's bytes: questions and answers as canonical CBOR (spec §6).
//!
//! ```text
//!   Query  = [0, from_epoch] | [1, [[height, root]…]] | [2, [root…]] | [3, epoch, after] | [4, after]
//!   Reply  = [0, tip, height, work, first_epoch, digests, bans] | [1, [wire…]] | [2, [wire…], more] | [3, [wire…], more]
//! ```
//!
//! `after` is an empty byte string for none. Digests are 12 bytes each, count (u32, little-endian) then hash, in one byte string. One
//! stream carries one question and one answer, each ended by the closing of its side. A decoder accepts exactly what the encoder
//! writes, reads no more than its bound, and stops at the first element too many; receipts stay bytes here, verifiers look at them.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteArray, ByteBuf};
use tops_protocol::codec;
use tops_protocol::engine::{
    BANS_PER_REPLY, Digest, EPOCHS_PER_STATUS, HEADS_PER_REPLY, LOCATOR_MAX, Query, ROOTS_PER_ASK, SHARES_PER_REPLY, Status,
};
use tops_protocol::{Height, PublicKey, Root, U256, UnitId};

use super::limits::{QUERY_MAX, REPLY_MAX};

/// An answer whose receipts are still bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawReply {
    /// To [`Query::Status`].
    Status(Status),
    /// To [`Query::Heads`] and [`Query::HeadsByRoot`]: wire forms.
    Heads(Vec<Vec<u8>>),
    /// To [`Query::Shares`].
    Shares {
        /// Wire forms.
        wires: Vec<Vec<u8>>,
        /// Whether the epoch has more.
        more: bool,
    },
    /// To [`Query::Bans`].
    Bans {
        /// Wire forms.
        wires: Vec<Vec<u8>>,
        /// Whether there are more.
        more: bool,
    },
}

impl RawReply {
    /// Whether this is the kind of answer that the question asks for.
    pub fn answers(&self, query: &Query) -> bool {
        match self {
            Self::Status(_) => matches!(query, Query::Status { .. }),
            Self::Heads(heads) => match query {
                Query::Heads { .. } => true,
                Query::HeadsByRoot { roots } => heads.len() <= roots.len(),
                _ => false,
            },
            Self::Shares { .. } => matches!(query, Query::Shares { .. }),
            Self::Bans { .. } => matches!(query, Query::Bans { .. }),
        }
    }
}

/// Why bytes are no question or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireFault {
    /// More bytes than allowed.
    #[error("larger than {max} bytes")]
    TooLarge {
        /// What is allowed.
        max: usize,
    },
    /// Not the canonical encoding of a message of this protocol.
    #[error("not a canonical message of the sync protocol")]
    Malformed,
}

/// At most `N` elements; a list that is longer fails at its element `N + 1`, whatever length it declares.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bounded<T, const N: usize>(Vec<T>);

impl<T: Serialize, const N: usize> Serialize for Bounded<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = Bounded<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} elements")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == N {
                        return Err(serde::de::Error::custom("too many elements"));
                    }
                    elements.push(element);
                }
                Ok(Bounded(elements))
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

type Pairs = Bounded<(u64, ByteArray<32>), LOCATOR_MAX>;
type Roots = Bounded<ByteArray<32>, ROOTS_PER_ASK>;
type Heads = Bounded<ByteBuf, HEADS_PER_REPLY>;
type Shares = Bounded<ByteBuf, SHARES_PER_REPLY>;
type Bans = Bounded<ByteBuf, BANS_PER_REPLY>;
type StatusWire = (u8, ByteArray<32>, u64, ByteArray<32>, u64, ByteBuf, ByteArray<12>);

const DIGEST_BYTES: usize = 12;

fn digest_bytes(digest: &Digest) -> [u8; DIGEST_BYTES] {
    let mut out = [0; DIGEST_BYTES];
    out[..4].copy_from_slice(&digest.count.to_le_bytes());
    out[4..].copy_from_slice(&digest.hash);
    out
}

fn digest(bytes: &[u8; DIGEST_BYTES]) -> Digest {
    let [a, b, c, d, hash @ ..] = *bytes;
    Digest { count: u32::from_le_bytes([a, b, c, d]), hash }
}

fn bufs<const N: usize>(wires: &[Vec<u8>]) -> Bounded<ByteBuf, N> {
    Bounded(wires.iter().map(|wire| ByteBuf::from(wire.as_slice())).collect())
}

fn wires<const N: usize>(bufs: Bounded<ByteBuf, N>) -> Vec<Vec<u8>> {
    bufs.0.into_iter().map(ByteBuf::into_vec).collect()
}

/// The second byte of a short array is its first element, when that is a small number: the message's kind.
fn kind(bytes: &[u8]) -> Option<u8> {
    bytes.get(1).copied()
}

fn read<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, WireFault> {
    codec::decode(bytes, max).map_err(|_| WireFault::Malformed)
}

/// The bytes of a question.
pub fn encode_query(query: &Query) -> Vec<u8> {
    match query {
        Query::Status { from_epoch } => codec::encode(&(0u8, from_epoch)),
        Query::Heads { locator } => {
            let pairs: Pairs = Bounded(locator.iter().map(|(height, root)| (height.0, ByteArray::new(root.0))).collect());
            codec::encode(&(1u8, pairs))
        }
        Query::HeadsByRoot { roots } => {
            let roots: Roots = Bounded(roots.iter().map(|root| ByteArray::new(root.0)).collect());
            codec::encode(&(2u8, roots))
        }
        Query::Shares { epoch, after } => {
            let after = after.map_or_else(ByteBuf::new, |unit| ByteBuf::from(unit.0));
            codec::encode(&(3u8, epoch, after))
        }
        Query::Bans { after } => {
            let after = after.map_or_else(ByteBuf::new, |key| ByteBuf::from(key.0));
            codec::encode(&(4u8, after))
        }
    }
}

/// Reads a question of at most [`QUERY_MAX`] bytes.
pub fn decode_query(bytes: &[u8]) -> Result<Query, WireFault> {
    if bytes.len() > QUERY_MAX {
        return Err(WireFault::TooLarge { max: QUERY_MAX });
    }
    let max = QUERY_MAX;
    match kind(bytes).ok_or(WireFault::Malformed)? {
        0 => {
            let (_, from_epoch): (u8, u64) = read(bytes, max)?;
            Ok(Query::Status { from_epoch })
        }
        1 => {
            let (_, pairs): (u8, Pairs) = read(bytes, max)?;
            Ok(Query::Heads { locator: pairs.0.into_iter().map(|(height, root)| (Height(height), Root(root.into_array()))).collect() })
        }
        2 => {
            let (_, roots): (u8, Roots) = read(bytes, max)?;
            Ok(Query::HeadsByRoot { roots: roots.0.into_iter().map(|root| Root(root.into_array())).collect() })
        }
        3 => {
            let (_, epoch, after): (u8, u64, ByteBuf) = read(bytes, max)?;
            Ok(Query::Shares { epoch, after: optional(&after)?.map(UnitId) })
        }
        4 => {
            let (_, after): (u8, ByteBuf) = read(bytes, max)?;
            Ok(Query::Bans { after: optional(&after)?.map(PublicKey) })
        }
        _ => Err(WireFault::Malformed),
    }
}

fn optional<const N: usize>(bytes: &[u8]) -> Result<Option<[u8; N]>, WireFault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| WireFault::Malformed)
}

/// The bytes of an answer.
pub fn encode_reply(reply: &RawReply) -> Vec<u8> {
    match reply {
        RawReply::Status(status) => {
            let digests: Vec<u8> = status.epochs.iter().flat_map(digest_bytes).collect();
            let wire: StatusWire = (
                0,
                ByteArray::new(status.tip.0),
                status.height.0,
                ByteArray::new(status.work.to_be_bytes()),
                status.first_epoch,
                ByteBuf::from(digests),
                ByteArray::new(digest_bytes(&status.bans)),
            );
            codec::encode(&wire)
        }
        RawReply::Heads(heads) => codec::encode(&(1u8, bufs::<HEADS_PER_REPLY>(heads))),
        RawReply::Shares { wires, more } => codec::encode(&(2u8, bufs::<SHARES_PER_REPLY>(wires), more)),
        RawReply::Bans { wires, more } => codec::encode(&(3u8, bufs::<BANS_PER_REPLY>(wires), more)),
    }
}

/// Reads an answer of at most [`REPLY_MAX`] bytes.
pub fn decode_reply(bytes: &[u8]) -> Result<RawReply, WireFault> {
    if bytes.len() > REPLY_MAX {
        return Err(WireFault::TooLarge { max: REPLY_MAX });
    }
    let max = REPLY_MAX;
    match kind(bytes).ok_or(WireFault::Malformed)? {
        0 => {
            let (_, tip, height, work, first_epoch, digests, bans): StatusWire = read(bytes, max)?;
            let (chunks, rest) = digests.as_chunks::<DIGEST_BYTES>();
            if !rest.is_empty() || chunks.len() > EPOCHS_PER_STATUS {
                return Err(WireFault::Malformed);
            }
            Ok(RawReply::Status(Status {
                tip: Root(tip.into_array()),
                height: Height(height),
                work: U256::from_be_bytes(work.into_array()),
                first_epoch,
                epochs: chunks.iter().map(digest).collect(),
                bans: digest(&bans.into_array()),
            }))
        }
        1 => {
            let (_, heads): (u8, Heads) = read(bytes, max)?;
            Ok(RawReply::Heads(wires(heads)))
        }
        2 => {
            let (_, shares, more): (u8, Shares, bool) = read(bytes, max)?;
            Ok(RawReply::Shares { wires: wires(shares), more })
        }
        3 => {
            let (_, bans, more): (u8, Bans, bool) = read(bytes, max)?;
            Ok(RawReply::Bans { wires: wires(bans), more })
        }
        _ => Err(WireFault::Malformed),
    }
}

/// The name of the sync protocol of a network.
pub fn sync_protocol(net: &str) -> Result<StreamProtocol, libp2p::swarm::InvalidProtocol> {
    StreamProtocol::try_from_owned(format!("/tops/{net}/sync/2"))
}

/// Reads and writes [`Query`] and [`RawReply`] on streams. Bytes that break the protocol are a value, not an error of the stream, so that
/// the peer can be told apart from a broken line.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncCodec;

/// Everything up to the end of the stream, or a fault one byte past `max`.
async fn read_all<T: AsyncRead + Unpin + Send>(io: &mut T, max: usize) -> io::Result<Result<Vec<u8>, WireFault>> {
    let mut bytes = Vec::new();
    io.take(max as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(if bytes.len() > max { Err(WireFault::TooLarge { max }) } else { Ok(bytes) })
}

impl request_response::Codec for SyncCodec {
    type Protocol = StreamProtocol;
    type Request = Result<Query, WireFault>;
    type Response = Result<RawReply, WireFault>;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &Self::Protocol, io: &mut T) -> io::Result<Self::Request> {
        Ok(read_all(io, QUERY_MAX).await?.and_then(|bytes| decode_query(&bytes)))
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &Self::Protocol, io: &mut T) -> io::Result<Self::Response> {
        let bytes = read_all(io, REPLY_MAX).await?;
        if bytes.as_ref().is_ok_and(Vec::is_empty) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes.and_then(|bytes| decode_reply(&bytes)))
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &Self::Protocol,
        io: &mut T,
        query: Self::Request,
    ) -> io::Result<()> {
        let query = query.map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
        io.write_all(&encode_query(&query)).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &Self::Protocol,
        io: &mut T,
        reply: Self::Response,
    ) -> io::Result<()> {
        let reply = reply.map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
        io.write_all(&encode_reply(&reply)).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root() -> impl Strategy<Value = [u8; 32]> {
        any::<[u8; 32]>()
    }

    fn key() -> impl Strategy<Value = [u8; 33]> {
        proptest::collection::vec(any::<u8>(), 33).prop_map(|bytes| bytes.try_into().unwrap())
    }

    fn query() -> impl Strategy<Value = Query> {
        prop_oneof![
            any::<u64>().prop_map(|from_epoch| Query::Status { from_epoch }),
            proptest::collection::vec((any::<u64>(), root()), 0..=LOCATOR_MAX)
                .prop_map(|pairs| Query::Heads { locator: pairs.into_iter().map(|(h, r)| (Height(h), Root(r))).collect() }),
            proptest::collection::vec(root(), 0..=ROOTS_PER_ASK)
                .prop_map(|roots| Query::HeadsByRoot { roots: roots.into_iter().map(Root).collect() }),
            (any::<u64>(), proptest::option::of(root())).prop_map(|(epoch, after)| Query::Shares { epoch, after: after.map(UnitId) }),
            proptest::option::of(key()).prop_map(|after| Query::Bans { after: after.map(PublicKey) }),
        ]
    }

    fn page() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..BANS_PER_REPLY)
    }

    fn reply() -> impl Strategy<Value = RawReply> {
        let digest = || (any::<u32>(), any::<[u8; 8]>()).prop_map(|(count, hash)| Digest { count, hash });
        let status = (root(), any::<u64>(), root(), any::<u64>(), proptest::collection::vec(digest(), 0..300), digest()).prop_map(
            |(tip, height, work, first_epoch, epochs, bans)| {
                RawReply::Status(Status {
                    tip: Root(tip),
                    height: Height(height),
                    work: U256::from_be_bytes(work),
                    first_epoch,
                    epochs,
                    bans,
                })
            },
        );
        prop_oneof![
            status,
            page().prop_map(RawReply::Heads),
            (page(), any::<bool>()).prop_map(|(wires, more)| RawReply::Shares { wires, more }),
            (page(), any::<bool>()).prop_map(|(wires, more)| RawReply::Bans { wires, more }),
        ]
    }

    proptest! {
        #[test]
        fn queries_come_back(query in query()) {
            let bytes = encode_query(&query);
            prop_assert!(bytes.len() <= QUERY_MAX);
            prop_assert_eq!(decode_query(&bytes), Ok(query));
        }

        #[test]
        fn replies_come_back(reply in reply()) {
            let bytes = encode_reply(&reply);
            prop_assert!(bytes.len() <= REPLY_MAX);
            prop_assert_eq!(decode_reply(&bytes), Ok(reply));
        }

        #[test]
        fn garbage_is_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(query) = decode_query(&bytes) {
                prop_assert_eq!(encode_query(&query), bytes.clone());
            }
            if let Ok(reply) = decode_reply(&bytes) {
                prop_assert_eq!(encode_reply(&reply), bytes);
            }
        }

        #[test]
        fn a_cut_or_lengthened_message_is_refused(query in query(), reply in reply(), cut in any::<prop::sample::Index>(), tail in any::<u8>()) {
            for (mut bytes, of_query) in [(encode_query(&query), true), (encode_reply(&reply), false)] {
                let refused = |bytes: &[u8]| if of_query { decode_query(bytes).is_err() } else { decode_reply(bytes).is_err() };
                prop_assert!(refused(&bytes[..cut.index(bytes.len())]));
                bytes.push(tail);
                prop_assert!(refused(&bytes));
            }
        }

        #[test]
        fn a_changed_byte_is_refused_or_another_message(
            query in query(), reply in reply(), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let changed = |mut bytes: Vec<u8>| {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                bytes
            };
            let bytes = changed(encode_query(&query));
            if let Ok(other) = decode_query(&bytes) {
                prop_assert_ne!(&other, &query);
                prop_assert_eq!(encode_query(&other), bytes);
            }
            let bytes = changed(encode_reply(&reply));
            if let Ok(other) = decode_reply(&bytes) {
                prop_assert_ne!(&other, &reply);
                prop_assert_eq!(encode_reply(&other), bytes);
            }
        }
    }

    /// The bytes with one of them changed: every place, every value.
    fn one_byte_changed(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..bytes.len()).flat_map(move |at| {
            (1..=u8::MAX).map(move |flip| {
                let mut changed = bytes.to_vec();
                changed[at] ^= flip;
                changed
            })
        })
    }

    // Large messages rarely have their few bytes of structure changed by chance.
    #[test]
    fn every_value_of_every_byte_of_a_small_message_is_refused_or_another_message() {
        let queries = [
            Query::Status { from_epoch: 300 },
            Query::Heads { locator: vec![(Height(9), Root([1; 32])), (Height(0), Root([2; 32]))] },
            Query::HeadsByRoot { roots: vec![Root([3; 32])] },
            Query::Shares { epoch: 70_000, after: None },
            Query::Shares { epoch: 70_000, after: Some(UnitId([4; 32])) },
            Query::Bans { after: None },
            Query::Bans { after: Some(PublicKey([2; 33])) },
        ];
        for query in queries {
            for changed in one_byte_changed(&encode_query(&query)) {
                if let Ok(other) = decode_query(&changed) {
                    assert_ne!(other, query);
                    assert_eq!(encode_query(&other), changed);
                }
            }
        }
        let digest = Digest { count: 2, hash: [6; 8] };
        let wires = || vec![vec![7; 30], Vec::new(), vec![8]];
        let replies = [
            RawReply::Status(Status {
                tip: Root([5; 32]),
                height: Height(3),
                work: U256::from(9),
                first_epoch: 1,
                epochs: vec![digest, Digest::default()],
                bans: digest,
            }),
            RawReply::Heads(Vec::new()),
            RawReply::Heads(wires()),
            RawReply::Shares { wires: wires(), more: true },
            RawReply::Bans { wires: wires(), more: false },
        ];
        for reply in replies {
            for changed in one_byte_changed(&encode_reply(&reply)) {
                if let Ok(other) = decode_reply(&changed) {
                    assert_ne!(other, reply);
                    assert_eq!(encode_reply(&other), changed);
                }
            }
        }
    }

    #[test]
    fn one_element_too_many_is_refused() {
        let roots = Query::HeadsByRoot { roots: vec![Root([1; 32]); ROOTS_PER_ASK + 1] };
        assert_eq!(decode_query(&encode_query(&roots)), Err(WireFault::Malformed));
        let heads = RawReply::Heads(vec![vec![1]; HEADS_PER_REPLY + 1]);
        assert_eq!(decode_reply(&encode_reply(&heads)), Err(WireFault::Malformed));
        let epochs = vec![Digest::default(); EPOCHS_PER_STATUS + 1];
        let status = Status { tip: Root([0; 32]), height: Height(0), work: U256::ZERO, first_epoch: 0, epochs, bans: Digest::default() };
        assert_eq!(decode_reply(&encode_reply(&RawReply::Status(status))), Err(WireFault::Malformed));
    }

    #[test]
    fn declared_lengths_are_not_believed() {
        // An array, a byte string and a map that declare 2^40 elements, and an indefinite array.
        for body in [
            &[0x82, 0x01, 0x9b, 0, 0, 1, 0, 0, 0, 0, 0][..],
            &[0x83, 0x02, 0x9b, 0, 0, 1, 0, 0, 0, 0, 0, 0xf4],
            &[0x82, 0x01, 0x5b, 0, 0, 1, 0, 0, 0, 0, 0],
            &[0x82, 0x01, 0xbb, 0, 0, 1, 0, 0, 0, 0, 0],
            &[0x82, 0x01, 0x9f, 0x40, 0xff],
            &[0x9f, 0x01, 0x80, 0xff],
        ] {
            assert!(decode_query(body).is_err(), "{body:02x?}");
            assert!(decode_reply(body).is_err(), "{body:02x?}");
        }
        assert_eq!(decode_query(&vec![0x80; QUERY_MAX + 1]), Err(WireFault::TooLarge { max: QUERY_MAX }));
        assert_eq!(decode_reply(&vec![0x80; REPLY_MAX + 1]), Err(WireFault::TooLarge { max: REPLY_MAX }));
    }

    #[test]
    fn a_stream_is_read_to_its_bound_and_no_further() {
        let mut endless = futures::io::repeat(0x80);
        let read = futures::executor::block_on(read_all(&mut endless, QUERY_MAX)).unwrap();
        assert_eq!(read, Err(WireFault::TooLarge { max: QUERY_MAX }));
    }
}
