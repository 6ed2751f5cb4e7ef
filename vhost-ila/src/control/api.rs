//! The routes, and their description.

use std::sync::Arc;

use axum::extract::{Path as Named, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use utoipa::OpenApi;

use super::Running;
use super::answer::{Attachment, Counters, Group, Mapping, Path, Redirects, Refusal, Reloaded, Unplugged};

/// The API of a running vhost-ila, on the Unix socket `control.sock` of its runtime directory.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "vhost-ila", license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")),
    servers((url = "http://localhost", description = "any host name: the socket is the address")),
    paths(counters, attachments, unplug, mappings, groups, learned_paths, redirects, reload)
)]
pub struct Description;

/// All routes over `running`.
pub fn router(running: Arc<Running>) -> Router {
    Router::new()
        .route("/v1/counters", get(counters))
        .route("/v1/attachments", get(attachments))
        .route("/v1/attachments/{name}/unplug", post(unplug))
        .route("/v1/mappings", get(mappings))
        .route("/v1/groups", get(groups))
        .route("/v1/paths", get(learned_paths))
        .route("/v1/redirects", get(redirects))
        .route("/v1/reload", post(reload))
        .fallback(unknown)
        .with_state(running)
}

/// Packets, bytes, drops by reason, and what the workers spent.
#[utoipa::path(get, path = "/v1/counters", responses((status = 200, body = Counters)))]
async fn counters(State(running): State<Arc<Running>>) -> Json<Counters> {
    Json(running.counters())
}

/// Every attachment, as configured and as its driver runs it.
#[utoipa::path(get, path = "/v1/attachments", responses((status = 200, body = Vec<Attachment>)))]
async fn attachments(State(running): State<Arc<Running>>) -> Response {
    // The config is locked while a reload runs, which may take a while: not on the thread of the sockets.
    blocking(move || Json(running.attachments()).into_response()).await
}

/// Let go of a host task's TUN, which goes away unless somebody else holds it.
#[utoipa::path(post, path = "/v1/attachments/{name}/unplug", params(("name" = String, Path, description = "the attachment")), responses(
    (status = 200, description = "The daemon has it no more", body = Unplugged),
    (status = 404, description = "There is no such task, or it has none", body = Refusal),
))]
async fn unplug(State(running): State<Arc<Running>>, Named(attachment): Named<String>) -> Response {
    // The worker is waited for.
    blocking(move || match running.unplug(&attachment) {
        Ok(()) => Json(Unplugged { attachment }).into_response(),
        Err(error) => {
            let refusal = Refusal { error: error.to_string(), problems: Vec::new() };
            (StatusCode::NOT_FOUND, Json(refusal)).into_response()
        }
    })
    .await
}

/// Every mapping: where each address lives, and how it looks on the wire.
#[utoipa::path(get, path = "/v1/mappings", responses((status = 200, body = Vec<Mapping>)))]
async fn mappings(State(running): State<Arc<Running>>) -> Json<Vec<Mapping>> {
    Json(running.mappings())
}

/// Every group that somebody listens to, here or on another host.
#[utoipa::path(get, path = "/v1/groups", responses((status = 200, body = Vec<Group>)))]
async fn groups(State(running): State<Arc<Running>>) -> Json<Vec<Group>> {
    Json(running.groups())
}

/// Every other host, and how large a packet the fabric carries there.
#[utoipa::path(get, path = "/v1/paths", operation_id = "paths", responses((status = 200, body = Vec<Path>)))]
async fn learned_paths(State(running): State<Arc<Running>>) -> Json<Vec<Path>> {
    Json(running.paths())
}

/// Redirects: keys, and how often each outcome came about.
#[utoipa::path(get, path = "/v1/redirects", responses((status = 200, body = Redirects)))]
async fn redirects(State(running): State<Arc<Running>>) -> Json<Redirects> {
    Json(running.redirects())
}

/// Read the config again and run it instead, as SIGHUP does. All of it or nothing.
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, description = "The new config runs", body = Reloaded),
    (status = 422, description = "Refused; what ran before still runs", body = Refusal),
))]
async fn reload(State(running): State<Arc<Running>>) -> Response {
    blocking(move || match running.reload() {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(refusal) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response(),
    })
    .await
}

async fn unknown() -> Response {
    let error = "no such path; see docs/openapi.yaml".to_owned();
    (StatusCode::NOT_FOUND, Json(Refusal { error, problems: Vec::new() })).into_response()
}

async fn blocking(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    let panicked = |_| StatusCode::INTERNAL_SERVER_ERROR.into_response();
    tokio::task::spawn_blocking(work).await.unwrap_or_else(panicked)
}
