//! `GET /openapi.json`: the interface described, from the handlers and types that it is made of.
//!
//! A route is registered and described by one line in `router`, so none is missing. With a token the security scheme is part of the description.

use std::sync::Arc;

use axum::Extension;
use axum::extract::RawQuery;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};

use super::forms::Nothing;
use super::{Problem, Query, Usual};

/// The scheme's name.
const TOKEN: &str = "token";

/// What the description says of the whole.
pub(super) fn about() -> OpenApi {
    let info = InfoBuilder::new()
        .title("tops-node")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "What a node knows and does. 256-bit numbers are decimal strings, hashes lower-case hex; unknown parameters are refused.",
        ))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// The description as it is sent.
#[derive(Clone)]
pub(super) struct Document(Arc<Result<String, String>>);

impl Document {
    pub(super) fn new(mut described: OpenApi, token: bool) -> Self {
        if token {
            require_token(&mut described);
        }
        Self(Arc::new(described.to_json().map_err(|fault| fault.to_string())))
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().filter_map(Option::as_mut)
}

fn require_token(described: &mut OpenApi) {
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    described.components.get_or_insert_default().add_security_scheme(TOKEN, scheme);
    let refusal = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    let refused = ResponseBuilder::new().description("The API token is missing or wrong").content("application/json", refusal).build();
    for (path, item) in &mut described.paths.paths {
        if path == "/healthz" {
            continue;
        }
        for operation in operations(item) {
            operation.security.get_or_insert_default().push(SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, []));
            operation.responses.responses.insert("401".into(), refused.clone().into());
        }
    }
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "health", params(Nothing),
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"), Usual)
)]
pub(super) async fn document(Extension(document): Extension<Document>, RawQuery(raw): RawQuery) -> Response {
    if let Err(problem) = Query::<Nothing>::parse(raw.as_deref()) {
        return problem.into_response();
    }
    match &*document.0 {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json.clone()).into_response(),
        Err(fault) => Problem::own(fault.clone()).into_response(),
    }
}
