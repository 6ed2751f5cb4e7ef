//! The other side of the socket: one request, one answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

/// A daemon that does not answer for so long is stuck. A reload waits for guests' front-ends, so it is not short.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends one request without a body; blocks until the answer is whole.
///
/// # Errors
/// Nobody listens at `socket`, we may not connect, or the answer does not come.
pub fn request(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, Bytes)> {
    send(socket, method, path, Bytes::new())
}

/// Sends `body` as JSON; blocks until the answer is whole.
///
/// # Errors
/// As [`request`].
pub fn post(socket: &Path, path: &str, body: &impl Serialize) -> Result<(StatusCode, Bytes)> {
    send(socket, Method::POST, path, serde_json::to_vec(body)?.into())
}

fn send(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, exchange(socket, method, path, body)).await })
        .with_context(|| format!("the daemon at {} does not answer", socket.display()))?
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("no daemon at {}: is `vhost-ila run` running?", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((status, body))
}
