//! Hands audited receipts to the aggregator: at least once, from the durable outbox, never in anybody's way.
//!
//! ```text
//!   Store::outbox(Due) ──▶ POST text form, Idempotency-Key: <unit> ──┬─ 2xx, 409 ──────────────▶ Delivered { taken: true }
//!        ▲                                                           ├─ other 4xx, ok:false ───▶ Delivered { taken: false }: dead letter
//!        └── 0.5 s .. 60 s later, full jitter, Retry-After ◀─────────┴─ 408, 429, 5xx, network
//! ```
//!
//! What is due is the engine's decision, and so is the new state, which it commits. Until that commit shows in the store a unit is not sent
//! again by this process; after a crash it may be, and the key tells the aggregator. Requests in flight and units remembered are bounded;
//! what does not fit waits in the store.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use rand::Rng;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tops_protocol::UnitId;
use tops_protocol::engine::OutboxState;
use tops_store::{OutboxRow, PAGE_MAX, Store};
use url::{Host, Url};

use crate::settings::one_line;
use crate::state::{Shared, count};

/// Requests in flight while the aggregator answers; one while it does not.
pub const IN_FLIGHT_MAX: usize = 8;
/// Units remembered between their tries; further ones wait in the store.
pub const REMEMBERED_MAX: usize = 4_096;
/// How often the outbox is looked at.
pub const POLL: Duration = Duration::from_millis(500);
/// The shortest pause before a repetition.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest pause, also when the aggregator asks for a longer one.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A request without an answer for so long counts as failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// As much of an answer is read as any verdict needs; a longer one counts by its status alone.
pub const ANSWER_MAX: usize = 64 * 1024;
/// A delivery whose commit does not show for so long is sent again.
const COMMIT_PATIENCE: Duration = Duration::from_secs(120);

/// Tells the engine what became of a unit: `true`, the aggregator has it; `false`, it refused it for good. Resolves to `false` when nobody
/// listens any more.
pub type Tell = Arc<dyn Fn(UnitId, bool) -> BoxFuture<'static, bool> + Send + Sync>;

/// The way to one aggregator.
pub struct Bridge {
    url: Url,
    client: Client,
    store: Arc<dyn Store>,
    shared: Shared,
    tell: Tell,
}

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The aggregator has it.
    Taken { note: String },
    /// It does not want it, ever.
    Refused { note: String },
    /// It may want it later; not before `after`, when it said so.
    Again { note: String, after: Option<Duration> },
}

/// What is remembered of a unit.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// A request is on its way.
    InFlight,
    /// The next try is not before this.
    Later { at: Instant },
    /// The engine was told; the commit is awaited until then.
    Told { until: Instant },
}

impl Bridge {
    /// A bridge to this address.
    pub fn new(url: Url, store: Arc<dyn Store>, shared: Shared, tell: Tell) -> anyhow::Result<Self> {
        let client = client(&url, &shared.identity().agent)?;
        Ok(Self { url, client, store, shared, tell })
    }

    /// Delivers until `stop` is done; requests that are then in flight are given up and repeated after the next start.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut units: BTreeMap<UnitId, Place> = BTreeMap::new();
        let mut running: JoinSet<(UnitId, u32, Outcome)> = JoinSet::new();
        let mut failing = false;
        let mut next_poll = Instant::now();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                Some(done) = running.join_next() => {
                    let Ok((unit, attempts, outcome)) = done else { continue };
                    let place = match outcome {
                        Outcome::Taken { note } => {
                            failing = false;
                            self.settled(unit, true, &note).await
                        }
                        Outcome::Refused { note } => {
                            failing = false;
                            self.settled(unit, false, &note).await
                        }
                        Outcome::Again { note, after } => {
                            failing = true;
                            count(&self.shared.counters().bridge_retries);
                            self.mark(unit, note.clone()).await;
                            let pause = pause(attempts, after);
                            tracing::debug!(%unit, note, pause_ms = pause.as_millis() as u64, "the aggregator did not take a receipt yet");
                            Some(Place::Later { at: Instant::now() + pause })
                        }
                    };
                    let Some(place) = place else { return };
                    units.insert(unit, place);
                    if running.is_empty() || !failing {
                        next_poll = next_poll.min(Instant::now() + POLL / 10);
                    }
                }
                () = sleep_until(next_poll) => {
                    next_poll = Instant::now() + POLL;
                    let room = if failing { 1 } else { IN_FLIGHT_MAX };
                    for row in self.due(&mut units, room.saturating_sub(running.len())).await {
                        units.insert(row.unit, Place::InFlight);
                        let (client, url) = (self.client.clone(), self.url.clone());
                        running.spawn(async move {
                            let (unit, attempts) = (row.unit, row.attempts);
                            (unit, attempts, post(&client, url, &unit.to_hex(), row.text).await)
                        });
                    }
                }
            }
        }
    }

    /// Tells the engine and counts; `None` when nobody listens any more.
    async fn settled(&self, unit: UnitId, taken: bool, note: &str) -> Option<Place> {
        let counters = self.shared.counters();
        if taken {
            count(&counters.bridge_delivered);
        } else {
            count(&counters.bridge_refused);
            tracing::warn!(%unit, note, "the aggregator refused a receipt for good; `/v1/outbox?state=dead` lists such");
            self.mark(unit, note.to_owned()).await;
        }
        (self.tell)(unit, taken).await.then(|| Place::Told { until: Instant::now() + COMMIT_PATIENCE })
    }

    async fn mark(&self, unit: UnitId, note: String) {
        let store = Arc::clone(&self.store);
        if let Ok(Err(fault)) = tokio::task::spawn_blocking(move || store.mark_attempt(&unit, &note)).await {
            tracing::warn!(%fault, "a delivery attempt could not be noted");
        }
    }

    /// At most `room` rows to send now, oldest epoch first. Forgets units that are due no more.
    async fn due(&self, units: &mut BTreeMap<UnitId, Place>, room: usize) -> Vec<OutboxRow> {
        if room == 0 {
            return Vec::new();
        }
        let now = Instant::now();
        let mut ready = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut after = None;
        let mut whole = false;
        while ready.len() < room && seen.len() < REMEMBERED_MAX {
            let store = Arc::clone(&self.store);
            let cursor = after.take();
            let page = match tokio::task::spawn_blocking(move || store.outbox(OutboxState::Due, cursor.as_ref(), PAGE_MAX)).await {
                Ok(Ok(page)) => page,
                Ok(Err(fault)) => {
                    tracing::warn!(%fault, "the outbox could not be read");
                    return ready;
                }
                Err(_) => return ready,
            };
            for row in page.rows {
                seen.insert(row.unit);
                let free = match units.get(&row.unit) {
                    None => units.len() + ready.len() < REMEMBERED_MAX,
                    Some(Place::InFlight) => false,
                    Some(Place::Later { at } | Place::Told { until: at }) => *at <= now,
                };
                if free && !row.text.is_empty() && ready.len() < room {
                    ready.push(row);
                }
            }
            after = page.next;
            if after.is_none() {
                whole = true;
                break;
            }
        }
        if whole {
            units.retain(|unit, place| seen.contains(unit) || matches!(place, Place::InFlight));
        }
        ready
    }
}

/// An HTTP client for this address: no redirects, bounded in time.
pub(crate) fn client(url: &Url, agent: &str) -> anyhow::Result<Client> {
    let mut client = Client::builder().redirect(redirect::Policy::none()).timeout(REQUEST_TIMEOUT).user_agent(agent);
    let local = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if local {
        // A proxy for the world is none for this machine.
        client = client.no_proxy();
    }
    client.build().context("the client for the aggregator could not be made")
}

/// The pause before the next try, within [`BACKOFF_MIN`] and [`BACKOFF_MAX`].
pub(crate) fn pause(attempts: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_else(|| jitter(attempts)).clamp(BACKOFF_MIN, BACKOFF_MAX)
}

/// Full jitter: anything up to twice the former bound, from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
fn jitter(attempts: u32) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1 << attempts.min(7)).clamp(BACKOFF_MIN * 2, BACKOFF_MAX);
    rand::rng().random_range(BACKOFF_MIN..=bound)
}

/// A verdict in an answer's body, in the original verifier's words.
#[derive(Deserialize)]
struct Verdict {
    ok: Option<bool>,
    sig_ok: Option<bool>,
    error: Option<String>,
}

/// Posts one receipt in text form under an idempotency key.
pub(crate) async fn post(client: &Client, url: Url, key: &str, text: String) -> Outcome {
    let request = client.post(url).header(CONTENT_TYPE, "application/json").header("Idempotency-Key", key).body(text);
    let mut answer = match request.send().await {
        Ok(answer) => answer,
        // The address may hold a password, the error's text may hold the address.
        Err(fault) => {
            return Outcome::Again { note: one_line(&format!("no answer: {:#}", anyhow::Error::from(fault.without_url()))), after: None };
        }
    };
    let (status, after) = (answer.status(), retry_after(answer.headers()));
    let mut body = Vec::new();
    let whole = timeout(REQUEST_TIMEOUT, async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - body.len())]);
            if body.len() == ANSWER_MAX {
                return;
            }
        }
    });
    // An answer that ends early counts by its status.
    let _ = whole.await;
    judge(status, after, &body)
}

fn judge(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Outcome {
    let verdict: Option<Verdict> = serde_json::from_slice(body).ok();
    let said = verdict.as_ref().and_then(|v| v.error.as_deref()).map(|e| format!(": {}", one_line(e))).unwrap_or_default();
    let note = format!("{}{said}", status.as_u16());
    let no = verdict.is_some_and(|v| v.ok == Some(false) || v.sig_ok == Some(false));
    match status {
        _ if status.is_success() || status == StatusCode::CONFLICT => {
            if no {
                Outcome::Refused { note }
            } else {
                Outcome::Taken { note }
            }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Outcome::Again { note, after },
        _ if status.is_client_error() => Outcome::Refused { note },
        // 5xx, and what no aggregator should say: a redirect is not followed.
        _ => Outcome::Again { note, after },
    }
}

/// `Retry-After` in seconds; a date is left to the jitter.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_place() {
        let judge = |status: u16, body: &str| judge(StatusCode::from_u16(status).unwrap(), None, body.as_bytes());
        let taken = |o: &Outcome| matches!(o, Outcome::Taken { .. });
        let refused = |o: &Outcome| matches!(o, Outcome::Refused { .. });
        let again = |o: &Outcome| matches!(o, Outcome::Again { .. });
        for status in [200, 201, 202, 204, 409] {
            assert!(taken(&judge(status, "")), "{status}");
            assert!(taken(&judge(status, "{\"ok\":true,\"sig_ok\":true}")), "{status}");
            assert!(refused(&judge(status, "{\"ok\":false}")), "{status}");
            assert!(refused(&judge(status, "{\"ok\":true,\"sig_ok\":false}")), "{status}");
            assert!(taken(&judge(status, "not json")), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 301, 307] {
            assert!(again(&judge(status, "{\"ok\":false}")), "{status}");
        }
        for status in [400, 401, 403, 404, 405, 410, 413, 422, 451] {
            assert!(refused(&judge(status, "")), "{status}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        for attempts in 0..100 {
            for _ in 0..50 {
                let pause = jitter(attempts);
                assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&pause));
                assert!(pause <= BACKOFF_MIN * 2u32.saturating_pow(attempts.clamp(1, 7)), "{attempts}");
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert(RETRY_AFTER, "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }
}
