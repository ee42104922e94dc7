//! What gossip thinks of a peer, with the reasons; and what this node adds from what the engine saw.
//!
//! A score below zero costs little, below [`GOSSIP`] no offers are exchanged, below [`PUBLISH`] own messages do not go there, below
//! [`GRAYLIST`] everything it says is ignored, and below [`DROP`] the connection is closed. A peer climbs back by behaving: every figure
//! decays. Nothing of this touches what is valid; it only decides whom to listen to.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::gossipsub::{PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams};
use tops_protocol::engine::{PeerFault, Topic};

use super::limits::ADDRESS_BOOK_MAX;

/// No offers to or from a peer below this.
pub const GOSSIP: f64 = -20.0;
/// Own messages do not go to a peer below this.
pub const PUBLISH: f64 = -50.0;
/// Nothing is heard from a peer below this.
pub const GRAYLIST: f64 = -100.0;
/// A peer below this is disconnected and refused for a while. It is near the line above: of who is not heard any more nothing is seen that
/// would make it sink further, while its bytes still cost.
pub const DROP: f64 = -120.0;
/// The application's part halves in so long.
pub const HALF_LIFE: Duration = Duration::from_secs(120);
/// The least that the application's part can be, so that the way back is not endless.
pub const APPLICATION_MIN: f64 = -400.0;

/// What a fault that the engine saw costs.
pub fn cost(fault: PeerFault) -> f64 {
    match fault {
        // It broke the protocol or its own claim; honest nodes do not. Three in a row and it is not heard.
        PeerFault::BadReply => 40.0,
        // Forwarding unaudited shares is allowed, so a single false one is bad luck; a habit is not.
        PeerFault::FalseShare => 6.0,
        // It claims to have audited what it offers.
        PeerFault::FalseHead => 60.0,
        // Asking often is impatience, and slow machines look like it.
        PeerFault::Greedy => 5.0,
    }
}

/// The thresholds.
pub fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: GOSSIP,
        publish_threshold: PUBLISH,
        graylist_threshold: GRAYLIST,
        // Peers that a pruning peer proposes are not dialled: the table of peers finds them.
        accept_px_threshold: f64::MAX,
        // Who brings nothing never gets here (see P1 and P2): a mesh whose median member is below takes in somebody better, so that silent
        // members are replaced.
        opportunistic_graft_threshold: 4.0,
    }
}

/// The factor that makes a figure halve in `secs` seconds when it is applied once a second.
fn halving(secs: f64) -> f64 {
    0.5f64.powf(1.0 / secs)
}

fn topic(topic: Topic) -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        // P1: a little for staying, at most 1 a topic after an hour, so that newcomers do not push out who has served long, and less in all
        // topics than what a member earns that brings news.
        time_in_mesh_weight: 1.0 / 3_600.0,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 3_600.0,
        // P2: a little for bringing news first, at most 10.
        first_message_deliveries_weight: 0.2,
        first_message_deliveries_decay: halving(60.0),
        first_message_deliveries_cap: 50.0,
        // P3 and P3b are off: on a quiet topic they punish honest peers for having nothing to say.
        mesh_message_deliveries_weight: 0.0,
        mesh_message_deliveries_decay: halving(60.0),
        mesh_message_deliveries_cap: 1.0,
        mesh_message_deliveries_threshold: 1.0,
        mesh_message_deliveries_window: Duration::from_millis(10),
        mesh_message_deliveries_activation: Duration::from_secs(60),
        mesh_failure_penalty_weight: 0.0,
        mesh_failure_penalty_decay: halving(60.0),
        // P4: only for what every honest node sees the same, so it may hurt. It grows with the square: the third invalid share within
        // minutes silences a peer. A false head costs its forwarder a look at a device, so two are enough there.
        invalid_message_deliveries_weight: match topic {
            Topic::Heads => -30.0,
            Topic::Receipts | Topic::Alerts => -12.0,
        },
        invalid_message_deliveries_decay: halving(180.0),
    }
}

/// Parameters for these topics.
pub fn params(topics: impl IntoIterator<Item = (Topic, TopicHash)>) -> PeerScoreParams {
    let topics: HashMap<_, _> = topics.into_iter().map(|(t, hash)| (hash, topic(t))).collect();
    PeerScoreParams {
        topics,
        // Good deeds do not pay for more than a few bad ones.
        topic_score_cap: 30.0,
        app_specific_weight: 1.0,
        // P6: many identities at one address cost little to make. Four are a household or a small rack; loopback is a testnet.
        ip_colocation_factor_weight: -5.0,
        ip_colocation_factor_threshold: 8.0,
        ip_colocation_factor_whitelist: HashSet::from([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]),
        // P7: broken promises and grafting too early; a few happen under load.
        behaviour_penalty_weight: -5.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: halving(60.0),
        decay_interval: Duration::from_secs(1),
        decay_to_zero: 0.01,
        // A peer that reconnects is still the one it was.
        retain_score: Duration::from_secs(3_600),
        slow_peer_weight: -0.2,
        slow_peer_threshold: 20.0,
        slow_peer_decay: halving(10.0),
    }
}

/// The application's part of each peer's score. Bounded: the best one is forgotten first.
#[derive(Debug, Default)]
pub struct Application(HashMap<PeerId, (f64, Instant)>);

impl Application {
    fn decayed((score, at): (f64, Instant), now: Instant) -> f64 {
        let halves = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        score * 0.5f64.powf(halves)
    }

    /// Takes away from a peer; gives what is left.
    pub fn penalise(&mut self, peer: PeerId, fault: PeerFault, now: Instant) -> f64 {
        let before = self.score(&peer, now);
        let score = (before - cost(fault)).max(APPLICATION_MIN);
        if self.0.len() >= ADDRESS_BOOK_MAX && !self.0.contains_key(&peer) {
            let best = self.0.iter().map(|(peer, entry)| (*peer, Self::decayed(*entry, now))).max_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((best, _)) = best {
                self.0.remove(&best);
            }
        }
        self.0.insert(peer, (score, now));
        score
    }

    /// The peer's part now, never above zero.
    pub fn score(&self, peer: &PeerId, now: Instant) -> f64 {
        self.0.get(peer).map_or(0.0, |entry| Self::decayed(*entry, now))
    }

    /// Every peer with a part, after decay; those that have recovered are forgotten.
    pub fn refresh(&mut self, now: Instant) -> Vec<(PeerId, f64)> {
        let all: Vec<_> = self.0.iter().map(|(peer, entry)| (*peer, Self::decayed(*entry, now))).collect();
        self.0.retain(|_, entry| Self::decayed(*entry, now) < -0.5);
        all.into_iter().map(|(peer, score)| (peer, if score < -0.5 { score } else { 0.0 })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_valid() {
        let hash = |name: &str| TopicHash::from_raw(name);
        params([(Topic::Heads, hash("h")), (Topic::Receipts, hash("r")), (Topic::Alerts, hash("a"))]).validate().unwrap();
        thresholds().validate().unwrap();
        const { assert!(DROP < GRAYLIST && GRAYLIST < PUBLISH && PUBLISH < GOSSIP && GOSSIP < 0.0) };
    }

    #[test]
    fn bad_luck_is_forgiven_and_a_habit_is_not() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut scores = Application::default();
        assert!(scores.penalise(peer, PeerFault::FalseShare, start) > GOSSIP);
        assert!(scores.score(&peer, start + HALF_LIFE) > -3.5);
        for _ in 0..20 {
            scores.penalise(peer, PeerFault::FalseShare, start);
        }
        assert!(scores.score(&peer, start) < GRAYLIST);
        for _ in 0..1_000 {
            scores.penalise(peer, PeerFault::FalseHead, start);
        }
        assert!(scores.score(&peer, start) >= APPLICATION_MIN);
        assert_eq!(scores.refresh(start + 20 * HALF_LIFE), vec![(peer, 0.0)]);
        assert_eq!(scores.score(&peer, start + 20 * HALF_LIFE), 0.0);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_worst() {
        let (worst, now) = (PeerId::random(), Instant::now());
        let mut scores = Application::default();
        scores.penalise(worst, PeerFault::FalseHead, now);
        for _ in 0..2 * ADDRESS_BOOK_MAX {
            scores.penalise(PeerId::random(), PeerFault::Greedy, now);
        }
        assert!(scores.0.len() <= ADDRESS_BOOK_MAX);
        assert!(scores.score(&worst, now) < -50.0);
    }
}
