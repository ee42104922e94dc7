//! The HTTP interface: health, metrics, what the node knows, and `POST /verify`.
//!
//! ```text
//!   state::Shared (view, counters) ─┐
//!   Store (reads, on blocking threads) ┼─▶ JSON          nothing here changes the node, but for its miner's pause and replays
//!   a CPU backend of its own ───────┘
//! ```
//!
//! It listens on loopback unless a token is set. Connections, requests, bodies, pages and recomputation are bounded; what is over a bound
//! gets an error, as JSON with one sentence. 256-bit numbers are decimal strings, hashes lower-case hex.

mod closed;
mod dashboard;
mod devices;
mod events;
mod forms;
mod heads;
mod health;
mod listen;
mod metrics;
mod mining;
mod openapi;
mod process;
mod receipts;
mod schema;
mod status;
mod verify;

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tops_compute::queue::LaneReport;
use tops_protocol::{NetworkSpec, UnitId};
use tops_store::{Store, StoreFault};
use utoipa::IntoResponses;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::forms::{Known, LIMIT, Param, Refusal};
use crate::config::Secret;
use crate::settings::one_line;
use crate::state::Shared;

pub use verify::Checker;

/// The largest body that is read; a longer one gets 413.
pub const BODY_MAX: usize = 1024 * 1024;
/// Requests that are worked on at once; a further one gets 503.
pub const REQUESTS_MAX: usize = 64;
/// Open connections; a further one waits in the system's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// Open event streams; a further one gets 503. They take no request's place, but a connection each.
pub const EVENT_STREAMS_MAX: usize = 32;
/// A request that takes longer gets 503; it is longer than any recomputation within its cap.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection on which nothing came for so long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// A request's head must come within this time, however its bytes are spread.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// After the word to stop, requests that are being answered get so long.
pub const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Rows of a page unless the client asks for fewer or more; the store has its own bound.
pub const PAGE_DEFAULT: usize = 100;

/// Has a dead letter sent again, or forgotten; resolves to `false` when the node stops.
pub type Replay = Arc<dyn Fn(UnitId) -> BoxFuture<'static, bool> + Send + Sync>;

/// What the devices do, asked anew for every answer.
pub type Devices = Arc<dyn Fn() -> Vec<LaneReport> + Send + Sync>;

/// What the interface shows.
pub struct Parts {
    /// The network's numbers.
    pub network: NetworkSpec,
    /// The view and the counters.
    pub shared: Shared,
    /// The rows.
    pub store: Arc<dyn Store>,
    /// The devices.
    pub devices: Devices,
    /// Has dead letters sent again.
    pub replay: Replay,
    /// Has dead letters forgotten.
    pub discard: Replay,
    /// Recomputes receipts for `POST /verify`.
    pub checker: Checker,
    /// What clients must show.
    pub token: Option<Secret>,
    /// The signer of v1 receipts, 33 or 65 bytes.
    pub verify_key: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Api(Arc<Inner>);

struct Inner {
    parts: Parts,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    sensors: Arc<devices::Sensors>,
}

impl std::ops::Deref for Api {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Api {
    /// Reads the store off the async threads.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&dyn Store) -> Result<T, StoreFault> + Send + 'static) -> Result<T, Problem> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || read(&*store)).await {
            Ok(Ok(value)) => Ok(value),
            // It passes by itself, so it is worth asking again.
            Ok(Err(fault @ StoreFault::Full { .. })) => Err(Problem::busy(fault.to_string())),
            Ok(Err(fault)) => Err(Problem::own(fault.to_string())),
            Err(_) => Err(Problem::own("reading the store failed".into())),
        }
    }
}

/// Why a request has no answer: a status and one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    status: StatusCode,
    sentence: String,
}

impl Problem {
    fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }
    fn bad(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }
    fn missing(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, sentence)
    }
    fn own(sentence: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
    }
    fn busy(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Refusal { error: self.sentence })).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

type Reply<T> = Result<Json<T>, Problem>;

/// The errors of a path that reads: documented with it.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "its variants are documentation; a Problem is what is answered")]
enum Usual {
    /// A parameter or the body is wrong
    #[response(status = 400)]
    Bad(Refusal),
    /// The request comes from a page of another origin, or asks for a host that this node is not
    #[response(status = 403)]
    Foreign(Refusal),
    /// The node's own fault
    #[response(status = 500)]
    Own(Refusal),
    /// The node is starting or stopping, too much is asked at once, or a full disk keeps the store from being read
    #[response(status = 503)]
    Busy(Refusal),
}

/// The errors of a path whose 503 has another body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "its variants are documentation; a Problem is what is answered")]
enum Refused {
    /// A parameter is wrong
    #[response(status = 400)]
    Bad(Refusal),
    /// The request comes from a page of another origin, or asks for a host that this node is not
    #[response(status = 403)]
    Foreign(Refusal),
}

/// The error of a path that documents its others.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "its variants are documentation; a Problem is what is answered")]
enum Forbidden {
    /// The request comes from a page of another origin, or asks for a host that this node is not
    #[response(status = 403)]
    Foreign(Refusal),
}

/// The parameters of a query string. Every one must be known to `P`, there at most once, and short.
struct Query<P>(BTreeMap<String, String>, PhantomData<P>);

impl<P: Known> Query<P> {
    /// Reads a raw query string.
    fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let mut all = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(raw.unwrap_or("").as_bytes()) {
            if !P::ALL.iter().any(|param| param.name == name) {
                let known: Vec<&str> = P::ALL.iter().map(|param| param.name).collect();
                let known = if known.is_empty() { "none is known here".into() } else { format!("there are {}", known.join(", ")) };
                return Err(Problem::bad(format!("unknown parameter `{}`: {known}", one_line(&name))));
            }
            if all.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Problem::bad("a parameter is there twice"));
            }
        }
        Ok(Self(all, PhantomData))
    }

    fn get<T>(&self, param: &Param, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(text) = self.0.get(param.name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| Problem::bad(format!("`{}` must be {}", param.name, param.what)))
    }

    fn limit(&self) -> Result<usize, Problem> {
        let limit = self.get(&LIMIT, |t| t.parse().ok().filter(|n| (1..=tops_store::PAGE_MAX).contains(n)))?;
        Ok(limit.unwrap_or(PAGE_DEFAULT))
    }
}

/// A body that must be JSON by its content type too: no page of another origin can send that unasked.
fn body_of<T>(body: Result<Json<T>, JsonRejection>, form: &str) -> Result<T, Problem> {
    match body {
        Ok(Json(body)) => Ok(body),
        Err(fault) if fault.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(closed::too_long()),
        Err(_) => Err(Problem::bad(format!("send {form} as application/json"))),
    }
}

/// The routes over these parts.
pub fn router(parts: Parts) -> Router {
    let sensors = Arc::new(devices::Sensors::new(parts.devices.clone()));
    let token = parts.token.is_some();
    let (requests, streams) = (Arc::new(Semaphore::new(REQUESTS_MAX)), Arc::new(Semaphore::new(EVENT_STREAMS_MAX)));
    let api = Api(Arc::new(Inner { parts, requests, streams, sensors }));
    let (routes, described) = OpenApiRouter::with_openapi(openapi::about())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(status::status))
        .routes(routes!(heads::head))
        .routes(routes!(heads::heads))
        .routes(routes!(heads::peers))
        .routes(routes!(devices::devices))
        .routes(routes!(heads::rejections))
        .routes(routes!(events::events))
        .routes(routes!(mining::show, mining::set))
        .routes(routes!(receipts::ledger))
        .routes(routes!(receipts::outbox))
        .routes(routes!(receipts::replay))
        .routes(routes!(receipts::discard))
        .routes(routes!(receipts::list))
        .routes(routes!(receipts::one))
        .routes(routes!(verify::verify))
        .routes(routes!(openapi::document))
        .split_for_parts();
    routes
        .merge(dashboard::routes())
        .fallback(|| async { Problem::missing("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method") })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::Extension(openapi::Document::new(described, token)))
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .layer(middleware::from_fn_with_state(token, closed::close))
        .with_state(api)
}

/// Token, number of requests, time.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Some(token) = &api.token
        && request.uri().path() != "/healthz"
        && !dashboard::is_page(request.uri().path())
        && !shows(&request, token)
    {
        return Problem::new(StatusCode::UNAUTHORIZED, "show the API token: Authorization: Bearer …").into_response();
    }
    if request.uri().path() == "/healthz" {
        // Whoever keeps all places busy must not make a supervisor think that the node is dead.
        return next.run(request).await;
    }
    let path = request.uri().path().to_owned();
    let Ok(_permit) = api.0.requests.clone().try_acquire_owned() else {
        return refused(&path, "too many requests at once: try again");
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refused(&path, "this took too long: try again"),
    }
}

/// A 503 in the form of its path.
fn refused(path: &str, why: &str) -> Response {
    if path == "/verify" { verify::refuse(StatusCode::SERVICE_UNAVAILABLE, why) } else { Problem::busy(why).into_response() }
}

/// Whether a request shows the token. Digests are compared, in a time that does not depend on where they differ.
fn shows(request: &Request, token: &Secret) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    given.is_some_and(|given| blake3::hash(given) == blake3::hash(token.expose().as_bytes()))
}

/// Serves until `stop` is done, then finishes what is being answered, within [`LAST_ANSWERS`].
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send + 'static) {
    let mut listener = listen::Bounded::new(listener, CONNECTIONS_MAX, IDLE_TIMEOUT);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let open = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            () = &mut stop => break,
        };
        let served = open.watch(http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router.clone())));
        tokio::spawn(async move {
            if let Err(fault) = served.await {
                tracing::trace!(%fault, "an HTTP connection ended");
            }
        });
    }
    drop(listener);
    // What takes longer ends with the process.
    let _ = tokio::time::timeout(LAST_ANSWERS, open.shutdown()).await;
}
