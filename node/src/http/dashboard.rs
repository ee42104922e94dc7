//! `GET /`: one page for people, made of static files that are part of the program.
//!
//! ```text
//!   browser ── / and /dashboard/… ──▶ these files, without a token: they hold nothing of the node
//!           ── fetch, with the token ──▶ /v1/events, /v1/status, /readyz, …
//! ```
//!
//! The policy below lets the page load its own files and talk to its own origin, and nothing else; `require-trusted-types-for` makes the browser refuse every
//! way of turning text into markup, so that what a peer says of itself can only become text.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Api;

/// What the browser lets the page do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
struct File {
    path: &'static str,
    mime: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Everything that a browser fetches to show the page.
const FILES: &[File] = &[
    File { path: "/", mime: HTML, text: include_str!("dashboard/index.html") },
    File { path: "/dashboard/style.css", mime: CSS, text: include_str!("dashboard/style.css") },
    File { path: "/dashboard/theme.js", mime: JS, text: include_str!("dashboard/theme.js") },
    File { path: "/dashboard/main.js", mime: JS, text: include_str!("dashboard/main.js") },
    File { path: "/dashboard/feed.js", mime: JS, text: include_str!("dashboard/feed.js") },
    File { path: "/dashboard/state.js", mime: JS, text: include_str!("dashboard/state.js") },
    File { path: "/dashboard/view.js", mime: JS, text: include_str!("dashboard/view.js") },
    File { path: "/dashboard/table.js", mime: JS, text: include_str!("dashboard/table.js") },
    File { path: "/dashboard/plot.js", mime: JS, text: include_str!("dashboard/plot.js") },
    File { path: "/dashboard/words.js", mime: JS, text: include_str!("dashboard/words.js") },
    File { path: "/dashboard/icon.svg", mime: "image/svg+xml", text: include_str!("dashboard/icon.svg") },
];

/// Whether a path is a file of the page, which is shown to whoever asks.
pub(super) fn is_page(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

/// The page's routes.
pub(super) fn routes() -> Router<Api> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(move |headers| serve(file, headers))))
}

/// The file, or that the browser's copy is still good: another program has other files under the same names.
async fn serve(file: &'static File, request: HeaderMap) -> Response {
    let tag = format!("\"{}\"", &blake3::hash(file.text.as_bytes()).to_hex()[..16]);
    let headers = [
        (header::CONTENT_TYPE, file.mime),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::ETAG, tag.as_str()),
    ];
    if request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, file.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page may weigh, in bytes; a phone on a bad line loads it too.
    const BYTES_MAX: usize = 60_000;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.text.len()).sum();
        assert!(bytes < BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn every_file_that_the_page_names_is_there_and_nothing_is_named_elsewhere() {
        for file in FILES {
            for quoted in file.text.split(['"', '\'', '`']) {
                if let Some(name) = quoted.strip_prefix("./") {
                    assert!(is_page(&format!("/dashboard/{name}")), "{} names {quoted}", file.path);
                }
                if quoted.starts_with("/dashboard/") {
                    assert!(is_page(quoted), "{} names {quoted}", file.path);
                }
                let elsewhere = quoted.starts_with("//") || quoted.starts_with("http:") || quoted.starts_with("https:");
                assert!(!elsewhere || quoted == "http://www.w3.org/2000/svg", "{} names {quoted}", file.path);
            }
        }
    }

    #[test]
    fn text_only_ever_becomes_text() {
        for file in FILES {
            for way in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "srcdoc",
                "<style",
                "style=\"",
                "onclick=",
            ] {
                assert!(!file.text.contains(way), "{} contains {way}", file.path);
            }
        }
    }
}
