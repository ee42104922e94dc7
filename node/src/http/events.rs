//! `GET /v1/events`: what happens, as server-sent events.
//!
//! ```text
//!   status                               at the connection and once a second, the body of /v1/status
//!   head share acknowledged false_root peers    as they happen
//!   rejection                            soon after they happen, the newest of a flood
//!   lagged {"missed":n}                  this reader was too slow, or rejections were too many: n events are not told
//! ```
//!
//! A stream takes none of the places of requests, but one of its own, and ends when the node stops. Nothing waits for a slow reader.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::sse::{self, KeepAlive, Sse};
use futures::stream::{self, Stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::forms::{Hash, Key, Nothing};
use super::heads::Rejected;
use super::{Api, Problem, Query, Usual, status};
use crate::state::Event;

/// How often a stream tells the status.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How often a stream looks for rejections and for the node's end.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Rejections told at one look; of a flood the newest are told and the others counted.
const REJECTIONS_A_LOOK: usize = 16;
/// A comment is sent when nothing was told for so long, so that a connection that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens, as server-sent events: `status` (the body of `/v1/status`) at the connection and once a second, `head`, `share`,
/// `acknowledged`, `false_root`, `peers`, `rejection`, and `lagged` for a reader that was too slow. It ends when the node stops.
#[utoipa::path(
    get, path = "/v1/events", tag = "node", params(Nothing),
    responses((status = 200, description = "A stream without an end", body = String, content_type = "text/event-stream"), Usual)
)]
pub(super) async fn events(
    State(api): State<Api>,
    RawQuery(raw): RawQuery,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    Query::<Nothing>::parse(raw.as_deref())?;
    let place = api.0.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::busy("too many event streams are open: close one and try again"))?;
    let source = Source::new(api, place);
    let told = stream::unfold(source, |mut source| async move { source.next().await.map(|event| (Ok(event), source)) });
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("still here")))
}

/// What one reader is told.
struct Source {
    api: Api,
    events: Receiver<Event>,
    status: Interval,
    look: Interval,
    /// Rejections that were there already.
    seen: u64,
    waiting: VecDeque<sse::Event>,
    _place: OwnedSemaphorePermit,
}

fn every(period: Duration) -> Interval {
    let mut every = interval(period);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    every
}

impl Source {
    fn new(api: Api, place: OwnedSemaphorePermit) -> Self {
        let (events, seen) = (api.shared.events(), api.shared.rejections_since(0, 0).0);
        Self { api, events, status: every(STATUS_EVERY), look: every(LOOK_EVERY), seen, waiting: VecDeque::new(), _place: place }
    }

    /// The next one; `None`: the node stops.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.api.shared.stopping() {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.status.tick() => {
                    // Before the first view there is nothing to tell yet.
                    if let Ok(body) = status::body(&self.api).await {
                        self.tell("status", &body);
                    }
                }
                _ = self.look.tick() => self.rejections(),
                event = self.events.recv() => match event {
                    Ok(event) => self.told(&event),
                    Err(RecvError::Lagged(missed)) => self.missed(missed),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn tell(&mut self, name: &str, data: &impl Serialize) {
        // What could not be written as JSON would be a fault of this module; it is not told.
        if let Ok(event) = sse::Event::default().event(name).json_data(data) {
            self.waiting.push_back(event);
        }
    }

    fn missed(&mut self, missed: u64) {
        self.tell("lagged", &json!({ "missed": missed }));
    }

    fn told(&mut self, event: &Event) {
        let name = match event {
            Event::Head { .. } => "head",
            Event::Share { .. } => "share",
            Event::Acknowledged { .. } => "acknowledged",
            Event::FalseRoot { .. } => "false_root",
            Event::Peers { .. } => "peers",
        };
        self.tell(name, &Data::from(event));
    }

    fn rejections(&mut self) {
        let (total, fresh) = self.api.shared.rejections_since(self.seen, REJECTIONS_A_LOOK);
        let missed = total.saturating_sub(self.seen).saturating_sub(fresh.len() as u64);
        self.seen = total;
        if missed > 0 {
            self.missed(missed);
        }
        for rejection in fresh {
            self.tell("rejection", &Rejected::from(rejection));
        }
    }
}

/// An event's data.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data {
    Head { root: Hash, height: u64, undone: u64 },
    Share { unit: Hash, miner: Key, epoch: u64, head: bool, audited: bool, age_ms: u64 },
    Acknowledged { unit: Hash, head: bool },
    FalseRoot { miner: Key, banned: bool },
    Peers { connected: usize },
}

impl From<&Event> for Data {
    fn from(event: &Event) -> Self {
        match *event {
            Event::Head { root, height, undone } => Self::Head { root: root.into(), height: height.0, undone },
            Event::Share { unit, miner, epoch, head, audited, age_ms } => {
                Self::Share { unit: unit.into(), miner: miner.into(), epoch, head, audited, age_ms }
            }
            Event::Acknowledged { unit, head } => Self::Acknowledged { unit: unit.into(), head },
            Event::FalseRoot { miner, banned } => Self::FalseRoot { miner: miner.into(), banned },
            Event::Peers { connected } => Self::Peers { connected },
        }
    }
}
