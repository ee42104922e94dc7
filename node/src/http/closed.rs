//! What keeps the interface closed to web pages of others, and to bodies that are too long.
//!
//! - No answer has a header of CORS, so that no page of another origin can read one.
//! - Without a token it listens on loopback, and answers only to a name of loopback: a page whose own name was made to resolve to this machine
//!   (DNS rebinding) asks for that name.
//! - A request that changes something and says that it comes from another origin is refused, with a token too.
//! - A body whose announced length is over the bound is refused unread; a little over it is passed over first, since a client that is still
//!   writing would see a broken connection and not the answer.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use super::{BODY_MAX, Problem, verify};

/// Set on every answer that does not say otherwise.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A refused body that is longer is not read at all.
const PASS_OVER_MAX: u64 = 4 * BODY_MAX as u64;
/// How long the rest of a shorter one may take; then the connection is closed all the same.
const PASS_OVER_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn too_long() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MB")
}

/// The outermost layer. `token`: clients must show one.
pub(super) async fn close(State(token): State<bool>, request: Request, next: Next) -> Response {
    let mut response = match refused(token, &request) {
        Some(response) => {
            pass_over(request).await;
            response
        }
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Reads a refused body that is not much too long, and keeps nothing of it.
async fn pass_over(request: Request) {
    if announced(&request).is_none_or(|length| length == 0 || length > PASS_OVER_MAX) {
        return;
    }
    let mut body = request.into_body().into_data_stream();
    let _ = tokio::time::timeout(PASS_OVER_WITHIN, async { while let Some(Ok(_)) = body.next().await {} }).await;
}

/// The length of the body that the client is about to send.
fn announced(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

fn refused(token: bool, request: &Request) -> Option<Response> {
    let foreign = |host: &HeaderValue| !host.to_str().is_ok_and(is_loopback);
    let hosts = request.headers().get_all(header::HOST);
    if !token && (hosts.iter().any(foreign) || request.uri().authority().is_some_and(|a| !is_loopback(a.as_str()))) {
        let why = "ask for localhost or 127.0.0.1: without an API token no other name is answered";
        return Some(Problem::new(StatusCode::FORBIDDEN, why).into_response());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD && !same_origin(request.headers()) {
        return Some(Problem::new(StatusCode::FORBIDDEN, "pages of another origin may change nothing here").into_response());
    }
    if announced(request).is_some_and(|length| length > BODY_MAX as u64) {
        return Some(match request.uri().path() {
            "/verify" => verify::refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MB"),
            _ => too_long().into_response(),
        });
    }
    None
}

/// Whether `host` or `host:port` names loopback. The port may be that of a tunnel.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split_once(']').is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the request does not come from a page, or comes from one of this very address.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        for good in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:4067", "[::1]", "[::1]:4067"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            ":1",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:4067",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "0.0.0.0",
            "x:localhost",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
