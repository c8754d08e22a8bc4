//! Answers that are given here, without the MCP layer.

use axum::body::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER,
    VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// A short text for people.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    with_body(status, "text/plain; charset=utf-8", Body::from(text))
}

/// The text with one header more.
pub(super) fn text_with(
    status: StatusCode,
    reason: &'static str,
    name: HeaderName,
    value: &'static str,
) -> Response<Body> {
    let mut response = text(status, reason);
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// 401, with the way in.
pub(super) fn unauthorized() -> Response<Body> {
    text_with(StatusCode::UNAUTHORIZED, "a token is needed\n", WWW_AUTHENTICATE, "Bearer")
}

/// 503 for a while.
pub(super) fn unavailable(reason: &'static str) -> Response<Body> {
    text_with(StatusCode::SERVICE_UNAVAILABLE, reason, RETRY_AFTER, "5")
}

/// 405 with the methods that exist.
pub(super) fn method_not_allowed(methods: &'static str) -> Response<Body> {
    text_with(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n", ALLOW, methods)
}

/// A JSON value that must not be kept by anybody on the way.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = with_body(status, "application/json", Body::from(value.to_string()));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A JSON-RPC error for a request that cannot be read (JSON-RPC 2.0, section 5.1).
pub(super) fn rpc_error(code: i32, message: &str, id: &Value) -> Response<Body> {
    let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}});
    json(StatusCode::BAD_REQUEST, &error)
}

fn with_body(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answer to a browser that asks before it sends.
pub(super) fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets a page of an accepted origin see the answer, and the session id in it.
pub(super) fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers
        .insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate"));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

const REQUEST_HEADERS: &str = "Content-Type, Accept, Authorization, Mcp-Session-Id, MCP-Protocol-Version, Last-Event-ID, Mcp-Method, Mcp-Name";
