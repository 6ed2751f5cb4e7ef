//! The routes, and their description.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path as Named, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

use super::Running;
use super::answer::{
    Attachment, Counters, Denial, Group, Held, Mapping, Move, Moved, Path, Redirects, Refusal, Registration,
    Reloaded, Unplugged, Update, Updated, Uplink,
};
use super::registry::Reason;
use super::running::Misplaced;
use crate::authority::Denied;

/// The API of a running vhost-ila, on the Unix socket `control.sock` of its runtime directory.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "vhost-ila", license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")),
    servers((url = "http://localhost", description = "any host name: the socket is the address")),
    paths(
        counters, uplink, attachments, unplug, activate, moved, mappings, registrations, register, move_to, unregister, update, groups, learned_paths,
        redirects, reload
    )
)]
pub struct Description;

/// All routes over `running`.
pub fn router(running: Arc<Running>) -> Router {
    Router::new()
        .route("/v1/counters", get(counters))
        .route("/v1/uplink", get(uplink))
        .route("/v1/attachments", get(attachments))
        .route("/v1/attachments/{name}/unplug", post(unplug))
        .route("/v1/attachments/{name}/activate", post(activate))
        .route("/v1/attachments/{name}/moved", post(moved))
        .route("/v1/mappings", get(mappings))
        .route("/v1/registrations", get(registrations).post(register))
        .route("/v1/registrations/move", post(move_to))
        .route("/v1/registrations/unregister", post(unregister))
        .route("/v1/registrations/bulk", post(update))
        .route("/v1/groups", get(groups))
        .route("/v1/paths", get(learned_paths))
        .route("/v1/redirects", get(redirects))
        .route("/v1/reload", post(reload))
        .fallback(unknown)
        .with_state(running)
}

/// Packets, bytes, drops by reason, and what the workers spent.
#[utoipa::path(get, path = "/v1/counters", responses((status = 200, body = Counters)))]
async fn counters(State(running): State<Arc<Running>>) -> Response {
    blocking(move || Json(running.counters()).into_response()).await
}

/// The way to the fabric, and what runs behind its socket where it has one.
#[utoipa::path(get, path = "/v1/uplink", responses((status = 200, body = Uplink)))]
async fn uplink(State(running): State<Arc<Running>>) -> Response {
    blocking(move || Json(running.uplink()).into_response()).await
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

/// An attachment's guest has come, though it has not said so (docs/migration.md). What is so already stays so.
#[utoipa::path(post, path = "/v1/attachments/{name}/activate", params(("name" = String, Path, description = "the attachment")), responses(
    (status = 200, description = "It has its addresses", body = Moved),
    (status = 404, description = "There is no such attachment", body = Refusal),
))]
async fn activate(State(running): State<Arc<Running>>, Named(attachment): Named<String>) -> Response {
    blocking(move || placed(running.activate(&attachment))).await
}

/// Where an attachment's guest has gone.
#[derive(Deserialize)]
struct Gone {
    to: String,
}

/// An attachment's guest has gone to another host, though that has not said so (docs/migration.md): it waits from now on.
#[utoipa::path(post, path = "/v1/attachments/{name}/moved",
    params(
        ("name" = String, Path, description = "the attachment"),
        ("to" = String, Query, description = "the locator of the host that has its guest now, a /64"),
    ),
    responses(
        (status = 200, description = "It has its addresses no more", body = Moved),
        (status = 404, description = "There is no such attachment", body = Refusal),
        (status = 422, description = "No guest could be there", body = Refusal),
))]
async fn moved(
    State(running): State<Arc<Running>>,
    Named(attachment): Named<String>,
    Query(Gone { to }): Query<Gone>,
) -> Response {
    blocking(move || placed(running.moved(&attachment, &to))).await
}

fn placed(outcome: Result<Moved, Misplaced>) -> Response {
    let (status, error) = match outcome {
        Ok(moved) => return Json(moved).into_response(),
        Err(Misplaced::Unknown(name)) => {
            (StatusCode::NOT_FOUND, format!("there is no attachment \"{name}\""))
        }
        Err(Misplaced::Refused(why)) => (StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    (status, Json(Refusal { error, problems: Vec::new() })).into_response()
}

/// Every mapping: where each address lives, and how it looks on the wire.
#[utoipa::path(get, path = "/v1/mappings", responses((status = 200, body = Vec<Mapping>)))]
async fn mappings(State(running): State<Arc<Running>>) -> Response {
    blocking(move || Json(running.mappings()).into_response()).await
}

/// Who holds each identifier: what the registry has, and what the configuration says.
#[utoipa::path(get, path = "/v1/registrations", responses((status = 200, body = Vec<Registration>)))]
async fn registrations(State(running): State<Arc<Running>>) -> Response {
    blocking(move || answered(running.registrations())).await
}

/// Register an identifier that nobody holds.
#[utoipa::path(post, path = "/v1/registrations", request_body = Held, responses(
    (status = 200, description = "It is registered, on disk, and packets for it go there", body = Registration),
    (status = 409, description = "Somebody holds it", body = Denial),
    (status = 422, description = "Nobody could hold that, or not there", body = Denial),
    (status = 501, description = "This host keeps no registry", body = Denial),
    (status = 503, description = "The registry fails", body = Denial),
))]
async fn register(State(running): State<Arc<Running>>, request: Asked<Held>) -> Response {
    match request {
        Ok(Json(request)) => blocking(move || answered(running.register(&request))).await,
        Err(rejection) => misunderstood(&rejection),
    }
}

/// Give an identifier to another holder, by the word of the one it has.
#[utoipa::path(post, path = "/v1/registrations/move", request_body = Move, responses(
    (status = 200, description = "It is moved, on disk, and packets for it go there", body = Registration),
    (status = 404, description = "Nobody holds it", body = Denial),
    (status = 409, description = "Somebody else holds it", body = Denial),
    (status = 422, description = "Nobody could hold that, or not there", body = Denial),
    (status = 501, description = "This host keeps no registry", body = Denial),
    (status = 503, description = "The registry fails", body = Denial),
))]
async fn move_to(State(running): State<Arc<Running>>, request: Asked<Move>) -> Response {
    match request {
        Ok(Json(request)) => blocking(move || answered(running.move_to(&request))).await,
        Err(rejection) => misunderstood(&rejection),
    }
}

/// Have nobody hold an identifier that its holder needs no more.
#[utoipa::path(post, path = "/v1/registrations/unregister", request_body = Held, responses(
    (status = 200, description = "Nobody holds it; what was asked", body = Held),
    (status = 404, description = "Nobody holds it", body = Denial),
    (status = 409, description = "Somebody else holds it", body = Denial),
    (status = 422, description = "Nobody could hold that, or not there", body = Denial),
    (status = 501, description = "This host keeps no registry", body = Denial),
    (status = 503, description = "The registry fails", body = Denial),
))]
async fn unregister(State(running): State<Arc<Running>>, request: Asked<Held>) -> Response {
    match request {
        Ok(Json(request)) => blocking(move || answered(running.unregister(&request).map(|()| request))).await,
        Err(rejection) => misunderstood(&rejection),
    }
}

/// Register, move and unregister many identifiers, in this order and each as by itself; what holds of it is on disk together. Two megabytes
/// at most.
#[utoipa::path(post, path = "/v1/registrations/bulk", request_body = Vec<Update>, responses(
    (status = 200, description = "How many changes hold, and why the others do not", body = Updated),
    (status = 422, description = "It is no list of changes", body = Denial),
    (status = 503, description = "The registry fails", body = Denial),
))]
async fn update(State(running): State<Arc<Running>>, request: Asked<Vec<Update>>) -> Response {
    match request {
        Ok(Json(request)) => blocking(move || answered(running.update(&request))).await,
        Err(rejection) => misunderstood(&rejection),
    }
}

/// The body of a request, read.
type Asked<T> = Result<Json<T>, JsonRejection>;

fn misunderstood(rejection: &JsonRejection) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(Denial { error: rejection.body_text(), holder: None }))
        .into_response()
}

fn answered<T: Serialize>(outcome: Result<T, Reason>) -> Response {
    let (status, denial) = match outcome {
        Ok(done) => return Json(done).into_response(),
        Err(Reason::Request(denial)) => (StatusCode::UNPROCESSABLE_ENTITY, denial),
        Err(Reason::Denied(denial, denied)) => {
            let status = match denied {
                Denied::Held(_) | Denied::NotHolder(_) | Denied::Configured(_) => StatusCode::CONFLICT,
                Denied::Unknown => StatusCode::NOT_FOUND,
                Denied::NoRegistry | Denied::ListedOnly => StatusCode::NOT_IMPLEMENTED,
                Denied::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, denial)
        }
    };
    (status, Json(denial)).into_response()
}

/// Every group that somebody listens to, here or on another host.
#[utoipa::path(get, path = "/v1/groups", responses((status = 200, body = Vec<Group>)))]
async fn groups(State(running): State<Arc<Running>>) -> Response {
    blocking(move || Json(running.groups()).into_response()).await
}

/// Every other host, and how large a packet the fabric carries there.
#[utoipa::path(get, path = "/v1/paths", operation_id = "paths", responses((status = 200, body = Vec<Path>)))]
async fn learned_paths(State(running): State<Arc<Running>>) -> Response {
    blocking(move || Json(running.paths()).into_response()).await
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
