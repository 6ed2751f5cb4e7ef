//! One front-end: its messages one after another, until it goes away or says something that is refused.
//!
//! What must stay true: when [`serve`] returns, nothing of the front-end is left (the [`Session`] is gone), whatever it did last.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vhost::vhost_user::{BackendReqHandler, Error};

use super::event::close_on_exec;
use super::handler::Session;
use super::server::Stop;

/// Serves `stream` until the front-end disconnects (Ok), something ends the connection (the reason), or `stop` is set (Ok).
///
/// # Errors
/// A message that was refused or could not be understood; in words, for the status.
pub fn serve(stream: UnixStream, session: Session, stop: &Stop) -> Result<(), String> {
    close_on_exec(&stream).map_err(|e| e.to_string())?;
    // Stopping shuts the socket down, which also ends a read in the middle of a message.
    let guard = stop.guard(&stream).map_err(|e| e.to_string())?;
    let mut requests = BackendReqHandler::from_stream(stream, Arc::new(Mutex::new(session)));
    log::debug!("front-end connected on descriptor {}", requests.as_raw_fd());
    let end = loop {
        match requests.handle_request() {
            Ok(()) => {}
            Err(_) if stop.is_set() => break Ok(()),
            Err(Error::Disconnected) => break Ok(()),
            // Reset by peer, or gone between its request and our answer: it was killed.
            Err(Error::SocketBroken(_)) => break Ok(()),
            Err(error) => break Err(error.to_string()),
        }
    };
    drop(guard);
    end
}
