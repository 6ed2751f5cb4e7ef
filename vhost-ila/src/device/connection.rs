//! One front-end: its messages one after another, until it goes away or says something that is refused.
//!
//! What must stay true: when [`serve`] returns, nothing of the front-end is left (the [`Session`] is gone), whatever it did last; and
//! it does return, because nothing in it waits for a front-end but [`Arrivals`], which knows how long.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use vhost::vhost_user::{BackendReqHandler, Error, VhostUserBackendReqHandlerMut as _};

use super::arrival::{self, Arrivals, PATIENCE};
use super::early_enable::{self, Next};
use super::event::close_on_exec;
use super::server::Stop;
use super::session::Session;

/// Serves `stream` until the front-end disconnects (Ok), something ends the connection (the reason), or `stop` is set (Ok).
///
/// # Errors
/// A message that was refused or could not be understood; in words, for the status.
pub fn serve(stream: UnixStream, session: Session, stop: &Stop) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    close_on_exec(&stream).map_err(text)?;
    // Stopping shuts the socket down, which ends every wait for it.
    let guard = stop.guard(&stream).map_err(text)?;
    let early = stream.try_clone().map_err(text)?;
    let mut arrivals = Arrivals::new(stream.try_clone().map_err(text)?, PATIENCE).map_err(text)?;
    let session = Arc::new(Mutex::new(session));
    let mut requests = BackendReqHandler::from_stream(stream, Arc::clone(&session));
    let mut features = false;
    let end = loop {
        let arrived = match arrivals.next() {
            Ok(arrived) => arrived,
            Err(_) if stop.is_set() => break Ok(()),
            Err(refused) => break Err(refused.to_string()),
        };
        if let arrival::Next::Message(header) = arrived
            && !features
        {
            // A failing socket fails again below, where what that means is known.
            match early_enable::next(&early, header) {
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
