//! Closed to pages of other origins, whole in its own description, and silent about secrets.

use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use tops_node::http;

use crate::{Server, TOKEN, server};

impl Server {
    async fn with(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn described(&self) -> Value {
        self.client.get(format!("{}/openapi.json", self.base)).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn a_page_whose_name_was_made_to_resolve_to_this_machine_gets_nothing() {
    let open = server(false).await;
    for host in ["evil.example", "evil.example:4067", "localhost.evil.example", "192.0.2.1"] {
        for path in ["/v1/status", "/healthz", "/v1/events", "/nowhere"] {
            let answer = open.with(Method::GET, path, &[("host", host)]).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{host}{path}");
            assert!(answer.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("localhost"));
        }
    }
    for host in ["localhost", "LocalHost:9", "127.0.0.1", "[::1]:4067"] {
        assert_eq!(open.with(Method::GET, "/v1/status", &[("host", host)]).await.status(), StatusCode::OK, "{host}");
    }
    let guarded = server(true).await;
    let bearer = format!("Bearer {TOKEN}");
    let answer = guarded.with(Method::GET, "/v1/status", &[("host", "node.example"), ("authorization", &bearer)]).await;
    assert_eq!(answer.status(), StatusCode::OK, "with a token it may have any name");
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing_and_reads_nothing() {
    let server = server(false).await;
    let own = server.base.strip_prefix("http://").unwrap().to_owned();
    let pause = |origin: String| {
        let request =
            server.client.post(format!("{}/v1/mining", server.base)).header("origin", origin).json(&serde_json::json!({ "paused": true }));
        async move { request.send().await.unwrap().status() }
    };
    for origin in ["http://evil.example", "null", "http://localhost:1", "https://evil.example:4067", "x"] {
        assert_eq!(pause(origin.into()).await, StatusCode::FORBIDDEN, "{origin}");
    }
    assert!(!server.shared.mining_paused());
    assert_eq!(pause(format!("http://{own}")).await, StatusCode::OK);
    assert!(server.shared.mining_paused());
    // A preflight gets no leave.
    let asked = [("origin", "http://evil.example"), ("access-control-request-method", "POST")];
    let preflight = server.with(Method::OPTIONS, "/v1/mining", &asked).await;
    assert!(!preflight.status().is_success(), "{}", preflight.status());
    for (method, path) in
        [(Method::GET, "/v1/status"), (Method::OPTIONS, "/v1/mining"), (Method::GET, "/nowhere"), (Method::GET, "/v1/events")]
    {
        let answer = server.with(method, path, &[("origin", "http://evil.example")]).await;
        let headers = answer.headers();
        assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")), "{path}: {headers:?}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("frame-ancestors 'none'"));
        assert!(headers.contains_key(header::CACHE_CONTROL));
    }
}

#[tokio::test]
async fn errors_are_json_whatever_the_method_or_path() {
    let server = server(false).await;
    let nowhere = server.with(Method::PUT, "/nowhere", &[]).await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    assert!(nowhere.json::<Value>().await.unwrap()["error"].is_string());
    let method = server.with(Method::DELETE, "/v1/mining", &[]).await;
    assert_eq!((method.status(), method.headers()[header::ALLOW].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD,POST"));
    assert!(method.json::<Value>().await.unwrap()["error"].is_string());
}

/// The announced length is enough to refuse: not one byte of the body was sent.
#[tokio::test]
async fn a_body_that_is_too_long_is_refused_unread() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server(false).await;
    for path in ["/verify", "/v1/mining", "/v1/outbox/replay"] {
        let mut socket = tokio::net::TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.unwrap();
        let length = http::BODY_MAX + 1;
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::time::timeout(http::REQUEST_TIMEOUT / 4, socket.read_exact(&mut answer)).await.expect("it waited for the body").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413", "{path}");
    }
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let server = server(false).await;
    let described = server.described().await;
    assert!(described["components"]["securitySchemes"].is_null(), "no token is asked for");
    let paths = described["paths"].as_object().unwrap();
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/status",
        "/v1/head",
        "/v1/heads",
        "/v1/peers",
        "/v1/devices",
        "/v1/rejections",
        "/v1/events",
        "/v1/mining",
        "/v1/ledger",
        "/v1/outbox",
        "/v1/outbox/replay",
        "/v1/outbox/drop",
        "/v1/receipts",
        "/v1/receipts/{id}",
        "/verify",
        "/openapi.json",
    ] {
        assert!(paths.contains_key(path), "{path} is not described");
    }
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            let answer = server.with(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), &path.replace("{id}", "00"), &[]).await;
            let found = answer.status();
            assert!(found != StatusCode::METHOD_NOT_ALLOWED && found != StatusCode::NOT_FOUND, "{method} {path}: {found}");
            assert!(!item[method]["summary"].as_str().unwrap().is_empty());
        }
    }
    // Every reference leads somewhere.
    let text = described.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(described["components"]["schemas"][reference].is_object(), "{reference}");
    }
    let guarded = crate::server(true).await.described().await;
    assert_eq!(guarded["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    for (path, item) in guarded["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            assert_eq!(operation["responses"]["401"].is_object(), path != "/healthz", "{path}");
        }
    }
}
