//! One front-end: its messages one after another, until it goes away or says something that is refused.
//!
//! What must stay true: when [`serve`] returns, nothing of the front-end is left (the [`Session`] is gone), whatever it did last.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use vhost::vhost_user::{BackendReqHandler, Error, VhostUserBackendReqHandlerMut as _};

use super::early_enable::{self, Next};
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
    let early = stream.try_clone().map_err(|e| e.to_string())?;
    let session = Arc::new(Mutex::new(session));
    let mut requests = BackendReqHandler::from_stream(stream, Arc::clone(&session));
    log::debug!("front-end connected on descriptor {}", requests.as_raw_fd());
    let mut features = false;
    let end = loop {
        if !features {
            // A failing socket fails again below, where what that means is known.
            match early_enable::next(&early) {
                Ok(Next::Enable { index, enable, answer }) => {
                    let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
                    let done = session.set_vring_enable(index, enable);
                    // A front-end that is gone is found out by the next look.
                    let _ = answer.send(&early, done.is_ok());
                    match done {
                        Ok(()) => continue,
                        Err(error) => break Err(error.to_string()),
                    }
                }
                Ok(Next::Features) => features = true,
                Ok(Next::Dispatch) | Err(_) => {}
            }
        }
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
