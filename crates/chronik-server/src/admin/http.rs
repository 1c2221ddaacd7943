//! `/metrics`, `/live`, `/ready`, `/health` (and their `z` spellings). Read-only in this release.
//!
//! - `/live`: 503 with the name of a shard that made no progress for 10 seconds.
//! - `/ready`: 503 with a list of reasons until the node serves, and while it stops.
//! - `/health`: `ok`, `degraded` (something is read-only or paused) or `failing` (503).

use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chronik_monitoring::{Format, Registry};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tracing::error;

use crate::node::Node;

#[derive(Clone)]
struct Admin {
    node: Arc<Node>,
    registry: Arc<Registry>,
}

/// Serves HTTP on `listeners` as tasks of `runtime`.
pub(crate) fn start(
    runtime: &Runtime,
    listeners: Vec<StdTcpListener>,
    node: &Arc<Node>,
    registry: &Arc<Registry>,
) -> std::io::Result<()> {
    let _context = runtime.enter();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(live))
        .route("/livez", get(live))
        .route("/ready", get(ready))
        .route("/readyz", get(ready))
        .route("/health", get(health))
        .route("/healthz", get(health))
        .with_state(Admin { node: Arc::clone(node), registry: Arc::clone(registry) });
    for listener in listeners {
        let listener = TcpListener::from_std(listener)?;
        let router = router.clone();
        runtime.spawn(async move {
            if let Err(failure) = axum::serve(listener, router).await {
                error!(error = %failure, "the HTTP listener stopped");
            }
        });
    }
    Ok(())
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::from_accept(accept);
    let content_type = [(header::CONTENT_TYPE, format.content_type())];
    (content_type, admin.registry.render(format)).into_response()
}

async fn live(State(admin): State<Admin>) -> Response {
    let stuck = admin.node.liveness.stuck(admin.node.clock.monotonic());
    let names: Vec<String> = stuck.iter().map(|one| one.name.clone()).collect();
    answer(names.is_empty(), &json!({ "live": names.is_empty(), "stuck": names }))
}

fn reasons(admin: &Admin) -> Vec<Value> {
    let reasons = admin.node.readiness.reasons();
    reasons.iter().map(|reason| json!({ "code": reason.code, "text": reason.text })).collect()
}

async fn ready(State(admin): State<Admin>) -> Response {
    let reasons = reasons(&admin);
    answer(reasons.is_empty(), &json!({ "ready": reasons.is_empty(), "reasons": reasons }))
}

async fn health(State(admin): State<Admin>) -> Response {
    let failing = reasons(&admin);
    let mut degraded = Vec::new();
    if admin.node.is_produce_paused() {
        let text = "produce is paused because the disk is almost full";
        degraded.push(json!({ "code": "E070", "text": text }));
    }
    for partition in admin.node.registry.partitions() {
        if !partition.is_writable() {
            let text = format!("{} is read-only: its log is damaged or failed", partition.name());
            degraded.push(json!({ "code": "E080", "text": text }));
        }
    }
    let (status, sentence) = match (failing.is_empty(), degraded.is_empty()) {
        (true, true) => ("ok", "everything works"),
        (true, false) => ("degraded", "some writes are refused"),
        (false, _) => ("failing", "the server does not serve"),
    };
    let reasons: Vec<Value> = failing.into_iter().chain(degraded).collect();
    answer(
        status != "failing",
        &json!({ "status": status, "summary": sentence, "reasons": reasons }),
    )
}

fn answer(is_ok: bool, body: &Value) -> Response {
    let status = if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
