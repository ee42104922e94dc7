//! Every bound of the process on one page: what it is, and what happens when it is reached.
//!
//! A peer can make this node work, but not without end: whatever a peer may add to is counted here. Bounds of the protocol itself (sizes
//! of receipts and replies) are the protocol's and only repeated where a buffer depends on them.

use std::time::Duration;

use tops_protocol::codec::RECEIPT_WIRE_MAX;

// ---- connections ------------------------------------------------------------------------------------------------------------------

/// Connections in all; more are refused at the handshake.
pub const CONNECTIONS_MAX: u32 = 160;
/// Connections that others opened; the rest is kept for those that this node chose, so that it cannot be surrounded.
pub const CONNECTIONS_INCOMING_MAX: u32 = 112;
/// Connections that this node opened; more dials are put off.
pub const CONNECTIONS_OUTGOING_MAX: u32 = 80;
/// Handshakes that others began; more are refused before any cryptography.
pub const PENDING_INCOMING_MAX: u32 = 48;
/// Handshakes that this node began; more dials are put off.
pub const PENDING_OUTGOING_MAX: u32 = 48;
/// Resident memory of the process above which no connection is made or taken, in bytes.
pub const MEMORY_MAX: usize = 6 << 30;
/// Nodes that this node wants to be connected to; below it, it looks for more.
pub const PEERS_WANTED: usize = 16;
/// Below so many it looks often.
pub const PEERS_FEW: usize = 4;
/// Of more than so many it gives up lines that it opened and that no mesh uses: walks of the table leave one to each peer that they asked, and
/// each costs pings and offers at both ends.
pub const PEERS_MANY: usize = 24;
/// So many of them in a second, at most.
pub const GIVEN_UP_PER_SEC: usize = 4;
/// How old a line is at least when it is given up: until then a walk may need it, or a mesh take it.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(12);
/// A connection that nothing uses is kept for so long.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(24 * 3600);
/// How often a line is tried with a ping.
pub const PING_EVERY: Duration = Duration::from_secs(8);
/// How long the answer may take. libp2p passes over the first failure of a line; after the second the line is closed.
pub const PING_WITHIN: Duration = Duration::from_secs(10);
/// How long closing a line may take; then it is dropped with what could not be sent.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// A peer that has not said who it is after so long is dropped.
pub const IDENTIFY_WITHIN: Duration = Duration::from_secs(10);
/// How often a peer may say anew who it is. Of what it says sooner only the last is kept, and looked at when the time is over.
pub const IDENTIFY_EVERY: Duration = Duration::from_secs(2);
/// How long a line may take to be set up, from the first packet on; who keeps silent gives the place back.
pub const SETUP_WITHIN: Duration = Duration::from_secs(10);
/// A peer that calls again so long after its first line was up has lost it: nobody calls whom it is connected to, and calls that were under way
/// have ended.
pub const BEGUN_ANEW: Duration = Duration::from_secs(12);
/// How long a second connection of a peer may stand beside the first.
pub const SECOND_CONNECTION: Duration = Duration::from_secs(2);
/// How long a peer that was dropped for a reason is refused.
pub const REFUSED_FOR: Duration = Duration::from_secs(600);
/// Refused peers that are remembered; the one whose time ends first is forgotten.
pub const REFUSED_MAX: usize = 1_024;
/// How long nothing useful may come by gossip before lines are exchanged for others, one of this node's own and, when no more are taken, one
/// of others' at a time.
pub const QUIET: Duration = Duration::from_secs(20);
/// How long a peer whose line was given up so is not connected again.
pub const EXCHANGED_FOR: Duration = Duration::from_secs(60);
/// Relays that are asked to lead to this node when nobody reaches it.
pub const RELAYS_WANTED: usize = 2;
/// How often a relay is asked again that did not want to.
pub const RELAY_ASK_EVERY: Duration = Duration::from_secs(15);
/// Streams of one connection; more are reset by the multiplexer.
pub const STREAMS_PER_CONNECTION: usize = 256;
/// What a peer may send on streams that it opened, in bytes a second: many times what gossip needs. Of more nothing is read until the second
/// is over, so that the peer has to wait.
pub const UNASKED_BYTES_PER_SEC: u32 = 512 * 1024;
/// And at once, by a peer that has been moderate for a while.
pub const UNASKED_BYTES_BURST: u32 = 4 * 1024 * 1024;
/// And at once on a new line, so that hanging up and calling again gains nothing: a full queue of gossip fits.
pub const UNASKED_BYTES_FIRST: u32 = 1536 * 1024;
/// What opening a stream counts for, in bytes: it is 128 streams a second, and each costs a negotiation.
pub const UNASKED_STREAM: u32 = 4 * 1024;
/// What a read counts for at least, in bytes.
pub const UNASKED_READ_MIN: usize = 64;
/// How long an empty budget is left to refill before more is read.
pub const UNASKED_PAUSE: Duration = Duration::from_millis(20);
/// A peer whose budget is empty for so long, or whose line ends while it is, is cut off and refused as one that floods.
pub const FLOOD_AFTER: Duration = Duration::from_secs(5);
/// Handshakes that one address (of IPv6, one network of 64 bits) may begin at once; more are refused before any cryptography.
pub const HANDSHAKES_BURST: u32 = 64;
/// And a second.
pub const HANDSHAKES_PER_SEC: u32 = 8;
/// And have open at a time: one address cannot fill all places by keeping silent.
pub const HANDSHAKES_OPEN: usize = 12;
/// Addresses whose handshakes are counted; the one that has been quiet for longest is forgotten.
pub const HANDSHAKES_ADDRESSES: usize = 1_024;
/// Of the peers that a node is connected to, so many it wants to have called itself: whoever fills its incoming lines does not surround it.
pub const OUTBOUND_WANTED: usize = 6;

// ---- addresses --------------------------------------------------------------------------------------------------------------------

/// Addresses that are kept of one peer; the book forgets the oldest, the table of peers is told those that reach farthest.
pub const ADDRESSES_PER_PEER: usize = 8;
/// The longest address with its peer, in bytes: a host name of some eighty letters; longer ones are not taken.
pub const ADDRESS_BYTES_MAX: usize = 128;
/// Peers whose addresses are kept; the one with most failed dials is forgotten.
pub const ADDRESS_BOOK_MAX: usize = 1_024;
/// Peers whose addresses outlive the process; the one that was reached longest ago is forgotten.
pub const REMEMBERED_MAX: usize = 64;
/// How often they are written, when they changed.
pub const REMEMBER_EVERY: Duration = Duration::from_secs(30);
/// First wait after a failed dial; it doubles, with jitter.
pub const REDIAL_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between dials of a peer of the book; then one that never answered is forgotten.
pub const REDIAL_LAST: Duration = Duration::from_secs(60);
/// Longest wait between dials of a bootstrap address; these are tried for ever.
pub const REDIAL_BOOTSTRAP_LAST: Duration = Duration::from_secs(15);
/// Dials that are begun in one turn of discovery; the rest waits for the next.
pub const DIALS_PER_TURN: usize = 8;
/// Concurrent dials of one peer's addresses.
pub const DIAL_CONCURRENCY: u8 = 4;
/// How often discovery looks at what is missing.
pub const DISCOVERY_TURN: Duration = Duration::from_millis(250);
/// How often the table of peers is walked while there are few peers.
pub const WALK_OFTEN: Duration = Duration::from_secs(1);
/// How often it is walked while there are some, or while nothing is heard.
pub const WALK_SELDOM: Duration = Duration::from_secs(30);
/// How often it is walked while there are enough, so that the table stays true.
pub const WALK_RARELY: Duration = Duration::from_secs(300);
/// The largest packet of the table's protocol: a full answer fits. Larger ones break the stream.
pub const KAD_PACKET_MAX: usize = 64 * 1024;
/// How long a walk may take.
pub const KAD_QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Records and providers that others may store here: none, the table is only for finding peers.
pub const KAD_RECORDS_MAX: usize = 0;

// ---- gossip -----------------------------------------------------------------------------------------------------------------------

/// Gossip's heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Heartbeats for which a message waits for its verdict; measured: 5 loses messages when validation takes seconds, 12 loses none.
pub const HISTORY: usize = 12;
/// Heartbeats whose messages are offered to peers outside the mesh.
pub const HISTORY_GOSSIP: usize = 3;
/// Verdicts later than this are told to nobody: gossip has forgotten the message.
pub const VERDICT_WITHIN: Duration = Duration::from_secs(11);
/// Messages whose verdict is open; more are ignored at once and counted as overflow.
pub const OPEN_MESSAGES_MAX: usize = 16_384;
/// Open messages that one peer delivered; more are ignored at once and counted as overflow.
pub const OPEN_MESSAGES_PER_PEER: usize = 2_048;
/// Messages that one peer may bring at once without a use: junk, things known in another form, what is too late. What is accepted counts for
/// nothing. Of more nothing is looked at: it is ignored and counted as overflow, and sync brings what was worth something.
pub const USELESS_BURST: u32 = 2_048;
/// And a second.
pub const USELESS_PER_SEC: u32 = 256;
/// So many messages past that budget count as one act of greed.
pub const USELESS_PER_FAULT: u32 = 256;
/// The largest gossip packet, many times a receipt; larger ones break the stream.
pub const GOSSIP_PACKET_MAX: usize = 16 * 1024;
/// Messages that wait to be sent to one peer; when it is full, new ones for that peer are dropped and it loses score as a slow one.
pub const GOSSIP_QUEUE_PER_PEER: usize = 1_024;
/// How long a message may wait in that queue.
pub const GOSSIP_QUEUE_TIME: Duration = Duration::from_secs(5);
/// How long the id of a message is remembered.
pub const DUPLICATE_CACHE: Duration = Duration::from_secs(60);
/// Messages in one gossip packet; the rest of a packet is not read.
pub const GOSSIP_MESSAGES_PER_PACKET: usize = 256;
/// Offers that are taken from one peer in a heartbeat.
pub const IHAVE_PER_HEARTBEAT: usize = 10;
/// Ids in one offer, and ids that one peer is asked for in a heartbeat; of more, some are picked by chance and the rest is left to others.
pub const CONTROL_IDS_MAX: usize = 256;
/// Own publications that wait for a peer to take them; the oldest is given up (peers still get it by sync).
pub const OUTBOX_MAX: usize = 4_096;
/// Waiting publications that go out at once; the rest follow with the next turns, so that a newcomer's queue has room for them.
pub const OUTBOX_AT_ONCE: usize = GOSSIP_QUEUE_PER_PEER / 4;
/// How long a publication waits before it is given up.
pub const OUTBOX_AGE: Duration = Duration::from_secs(180);

// ---- sync -------------------------------------------------------------------------------------------------------------------------

/// The largest question: a locator of 64 pairs.
pub const QUERY_MAX: usize = 4 * 1024;
/// The largest answer: 256 receipts with their heads, or 4,096 digests.
pub const REPLY_MAX: usize = 512 * 1024;
/// How long a question may take, both ways.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions of all peers that wait for this node's answer; more are dropped.
pub const OPEN_ANSWERS_MAX: usize = 256;
/// Questions of one peer that wait for an answer; more are dropped, and the peer counts as greedy.
pub const OPEN_ANSWERS_PER_PEER: usize = 8;
/// Own questions that wait for an answer; more fail at once.
pub const OPEN_ASKS_MAX: usize = 512;
/// Streams of the sync protocol on one connection; more are refused by the handler.
pub const SYNC_STREAMS_PER_PEER: usize = 16;

// ---- channels between the rooms of the process ----------------------------------------------------------------------------------

/// Events on their way from the network to the loop. Full: gossip is ignored and counted as overflow, questions are dropped; comings and
/// goings of peers and own questions' answers wait in the network task (bounded by connections and open questions).
pub const NET_EVENTS: usize = 8_192;
/// Comings, goings and answers that the loop has not taken. Full: the network task turns to nothing else until the loop takes some.
pub const NET_BACKLOG: usize = 4_096;
/// Commands on their way from the loop to the network. Full (the network task stands still): the command is dropped and counted.
pub const NET_COMMANDS: usize = 16_384;
/// Peers that left and whose numbers are kept for them. Full: who left first is forgotten.
pub const GONE_PEERS_MAX: usize = 1_024;
/// Bytes that wait for a verifier. Full: gossip is ignored and counted as overflow, an answer fails.
pub const VERIFIER_QUEUE: usize = 4_096;
/// Drafts that wait for their signature: as many as the engine lets wait. Full: a hit is lost, and that is said.
pub const SIGNER_QUEUE: usize = 1_024;
/// Verified receipts on their way to the loop. Full: verifiers wait, and their queue fills.
pub const VERIFIER_RESULTS: usize = 1_024;
/// Verdicts by bytes that verifiers remember; the oldest is forgotten.
pub const VERIFIER_MEMO: usize = 16_384;
/// Verifier threads at most.
pub const VERIFIER_THREADS_MAX: usize = 4;
/// Finished audits on their way to the loop: as many as the devices' queue holds of all priorities, so it is never full.
pub const AUDIT_RESULTS: usize = 8_192;
/// Hits on their way to the loop. Full: the miner waits, which is what it should do.
pub const MINER_HITS: usize = 1_024;
/// Questions whose rows wait to be read from the store. Full: the question is dropped.
pub const ANSWER_QUEUE: usize = 256;
/// Batches that are given to the store and not flushed. Full: the loop takes nothing new until one is.
pub const COMMITS_IN_FLIGHT: usize = 1_024;
/// Words of the bridge on their way to the loop. Full: the bridge waits.
pub const BRIDGE_WORDS: usize = 1_024;

/// A page of receipts with CBOR heads and the reply's own stays below [`REPLY_MAX`].
const _: () = assert!(256 * (RECEIPT_WIRE_MAX + 3) + 64 < REPLY_MAX);
/// So does a full status.
const _: () = assert!(tops_protocol::engine::EPOCHS_PER_STATUS * 12 + 256 < REPLY_MAX);
/// A peer that vanishes right after a ping is noticed within 40 seconds, when opening the second ping's stream takes as long as it may.
const _: () = assert!(2 * (PING_EVERY.as_secs() + PING_WITHIN.as_secs()) + CLOSE_WITHIN.as_secs() <= 40);
/// A call that began before the first line was up has ended when a second line means that the first is lost.
const _: () = assert!(BEGUN_ANEW.as_secs() > SETUP_WITHIN.as_secs());
/// Three addresses that keep silent leave room for others.
const _: () = assert!(3 * HANDSHAKES_OPEN < PENDING_INCOMING_MAX as usize);
/// The table's fullest answer fits into its packet: per peer its id, and addresses with their tags. Beside those that it is told, the table
/// adds the address of each line that was dialled, and a peer has two lines at most. Twice that, since such an address may be a longer
/// name.
const _: () = assert!(2 * libp2p::kad::K_VALUE.get() * ((ADDRESSES_PER_PEER + 2) * (ADDRESS_BYTES_MAX + 4) + 64) < KAD_PACKET_MAX);
/// An offer fits into a gossip packet, with its topic: an id is 20 bytes with two of tag and length. A packet that is too large ends gossip
/// with that peer for good, and gossipsub 0.50.1 counts what it has read of the next packets, 8 KiB at most, as part of it.
const _: () = assert!(CONTROL_IDS_MAX * 22 + 256 + 8 * 1024 < GOSSIP_PACKET_MAX);
/// A queue of gossip that waited for a new line is no flood.
const _: () = assert!(GOSSIP_QUEUE_PER_PEER * (RECEIPT_WIRE_MAX + 64) < UNASKED_BYTES_FIRST as usize);
/// A receipt fits into a gossip packet.
const _: () = assert!(RECEIPT_WIRE_MAX + 256 < GOSSIP_PACKET_MAX);
