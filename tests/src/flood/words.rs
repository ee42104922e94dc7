//! What floods say, in the bytes of each protocol.

use libp2p::identity::Keypair;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tops_node::net::behaviour::Names;
use tops_node::net::codec::encode_query;
use tops_protocol::engine::{Query, Topic};
use tops_protocol::keys::SecretKey;
use tops_protocol::receipt::{Draft, KERNEL_V2};
use tops_protocol::types::INTEGER_LIMIT;
use tops_protocol::{Height, Millis, NetworkSpec, Nonce, Receipt, Root, Signature, Text};

use super::Kind;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes in a protocol buffer.
fn field(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packet.len() + 4);
    varint(packet.len() as u64, &mut out);
    out.extend_from_slice(packet);
    out
}

/// A nonce for every number.
fn nonce(number: u64) -> Nonce {
    match Nonce::new(number % INTEGER_LIMIT) {
        Some(nonce) => nonce,
        None => unreachable!("it is below the limit"),
    }
}

/// What a node says of itself.
pub(super) fn identify(key: &Keypair, names: &Names) -> Vec<u8> {
    let mut said = Vec::new();
    field(1, &key.public().encode_protobuf(), &mut said);
    for protocol in ["/ipfs/id/1.0.0", "/meshsub/1.1.0", names.sync().as_ref()] {
        field(3, protocol.as_bytes(), &mut said);
    }
    field(5, names.identify().as_bytes(), &mut said);
    field(6, b"flood/1", &mut said);
    framed(&said)
}

/// The words of one flood.
pub(super) struct Words {
    kind: Kind,
    names: Names,
    chance: StdRng,
    key: SecretKey,
    /// A receipt that is made anew by its nonce.
    model: Receipt,
    /// Something that needs no new making.
    fixed: Vec<u8>,
    said: u64,
}

impl Words {
    pub(super) fn new(kind: Kind, network: &NetworkSpec) -> Self {
        let mut bytes = [7; 32];
        bytes[31] = kind as u8;
        let key = match SecretKey::from_bytes(&bytes) {
            Some(key) => key,
            None => unreachable!("a small number is a key"),
        };
        let foreign = kind == Kind::Foreign;
        let model = Receipt {
            device_did: Text::cleaned("did:flood"),
            epoch_id: 9,
            prev_hash: Root([0x11; 32]),
            nonce: nonce(0),
            work_root: Root([0; 32]),
            shape: network.shape(),
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: Text::cleaned("CPU"),
            network: if foreign { NetworkSpec::main().tag() } else { network.tag() },
            miner: key.public(),
            timestamp: Millis(u64::from(u32::MAX)),
            sig: Signature([1; 64]),
        };
        let mut words = Self {
            kind,
            names: Names::new(network.tag()),
            chance: StdRng::seed_from_u64(kind as u64),
            key,
            model,
            fixed: Vec::new(),
            said: 0,
        };
        words.fixed = words.signed();
        words
    }

    fn signed(&mut self) -> Vec<u8> {
        self.said += 1;
        let draft = Draft::new(Receipt { nonce: nonce(self.said), ..self.model.clone() });
        let sig = self.key.sign(&draft.prehash());
        draft.with_signature(sig).to_wire()
    }

    pub(super) fn protocol(&self) -> &'static str {
        match self.kind {
            Kind::Claims => "/ipfs/id/push/1.0.0",
            Kind::Questions | Kind::Walks => self.named(),
            _ => "/meshsub/1.1.0",
        }
    }

    /// Names that hold the network's tag; leaked, once a flood.
    fn named(&self) -> &'static str {
        use std::sync::{Mutex, PoisonError};
        static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
        let name = if self.kind == Kind::Walks { self.names.kad() } else { self.names.sync() };
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        match names.iter().find(|known| **known == name.as_ref()) {
            Some(known) => known,
            None => {
                let leaked: &'static str = Box::leak(name.as_ref().to_owned().into_boxed_str());
                names.push(leaked);
                leaked
            }
        }
    }

    pub(super) fn a_stream_each(&self) -> bool {
        matches!(self.kind, Kind::Questions | Kind::Claims | Kind::Streams)
    }

    /// Whether it lets go of each stream.
    pub(super) fn closes(&self) -> bool {
        self.kind != Kind::Streams
    }

    /// One message for a stream of its own.
    pub(super) fn one(&mut self) -> Vec<u8> {
        match self.kind {
            Kind::Questions => {
                let locator = (0..32).map(|height| (Height(height), Root(self.chance.random()))).collect();
                encode_query(&Query::Heads { locator })
            }
            Kind::Claims => {
                let mut said = Vec::new();
                field(5, self.names.identify().as_bytes(), &mut said);
                for _ in 0..20 {
                    let port: u16 = self.chance.random();
                    field(2, &[4, 10, 0, 0, self.chance.random(), 6, (port >> 8) as u8, port as u8], &mut said);
                }
                framed(&said)
            }
            _ => Vec::new(),
        }
    }

    fn message(&mut self, topic: Topic) -> Vec<u8> {
        let data = match self.kind {
            Kind::Garbage => {
                let mut data = vec![0; 100];
                self.chance.fill_bytes(&mut data);
                data
            }
            Kind::Orphans => self.signed(),
            Kind::Duplicates => self.fixed.clone(),
            Kind::Huge => vec![self.chance.random(); 20 * 1024],
            _ => {
                self.said += 1;
                Receipt { nonce: nonce(self.said), ..self.model.clone() }.to_wire()
            }
        };
        let mut message = Vec::new();
        field(2, &data, &mut message);
        field(4, self.names.topic(topic).hash().as_str().as_bytes(), &mut message);
        message
    }

    /// A packet of up to so many messages, and how many are in it.
    pub(super) fn packet(&mut self, at_most: u32) -> (Vec<u8>, u32) {
        let topic = self.names.topic(Topic::Receipts).hash().as_str().as_bytes().to_owned();
        let (mut out, mut count) = (Vec::new(), 0);
        while count < at_most {
            let mut packet = Vec::new();
            match self.kind {
                Kind::Walks => {
                    // FIND_NODE
                    packet.extend([8, 4]);
                    let key: [u8; 32] = self.chance.random();
                    field(2, &key, &mut packet);
                    count += 1;
                }
                Kind::Offers | Kind::Requests => {
                    let mut ids = Vec::new();
                    if self.kind == Kind::Offers {
                        field(1, &topic, &mut ids);
                    }
                    for _ in 0..20 {
                        let id: [u8; 20] = self.chance.random();
                        field(if self.kind == Kind::Offers { 2 } else { 1 }, &id, &mut ids);
                    }
                    let mut control = Vec::new();
                    field(if self.kind == Kind::Offers { 1 } else { 2 }, &ids, &mut control);
                    field(3, &control, &mut packet);
                    count += 1;
                }
                Kind::Grafts => {
                    let (mut graft, mut control) = (Vec::new(), Vec::new());
                    field(1, &topic, &mut graft);
                    field(if self.said.is_multiple_of(2) { 3 } else { 4 }, &graft, &mut control);
                    self.said += 1;
                    field(3, &control, &mut packet);
                    count += 1;
                }
                Kind::Huge => {
                    let message = self.message(Topic::Receipts);
                    field(2, &message, &mut packet);
                    count += 1;
                }
                _ => {
                    // As many as are taken at once: the library closes a stream on which a packet and the read after it, of 8 KiB, are more
                    // than the largest packet.
                    while count < at_most && packet.len() < 7 * 1024 {
                        let message = self.message(Topic::Receipts);
                        field(2, &message, &mut packet);
                        count += 1;
                    }
                }
            }
            out.extend(framed(&packet));
        }
        (out, count)
    }
}
