//! SET_VRING_ENABLE before SET_FEATURES.
//!
//! QEMU enables the rings of a vhost-user NIC when it makes the device, long before its guest negotiates features. The dispatcher of
//! the `vhost` crate refuses that message as long as no features were set, and ends the connection; so it is taken out of the
//! stream before the dispatcher sees it. Everything else is left to the dispatcher, well-formed or not.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::arrival::{HEADER, Header};

/// SET_FEATURES (vhost-user, "Front-end message types").
const SET_FEATURES: u32 = 2;
const SET_VRING_ENABLE: u32 = 18;

/// Bits 0 and 1 of the flags: the version, always 1.
const VERSION: u32 = 0x1;
const VERSION_MASK: u32 = 0x3;
/// Flags: this is a reply; a reply is wanted.
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;

/// What comes next on a connection.
pub(super) enum Next {
    /// Ring `index` is to be enabled or disabled; `answer` is to be sent with the outcome.
    Enable { index: u32, enable: bool, answer: Answer },
    /// A message for the dispatcher.
    Dispatch,
    /// SET_FEATURES, for the dispatcher; from here on it takes SET_VRING_ENABLE as well.
    Features,
}

/// Whether and how the front-end wants to hear of a message's outcome.
pub(super) struct Answer {
    wanted: bool,
}

impl Answer {
    /// Tells the front-end, if it asked: 0 for success.
    ///
    /// # Errors
    /// The front-end is gone.
    pub(super) fn send(self, mut stream: &UnixStream, succeeded: bool) -> io::Result<()> {
        if !self.wanted {
            return Ok(());
        }
        let outcome = u64::from(!succeeded);
        let header = [SET_VRING_ENABLE, VERSION | REPLY, 8].map(u32::to_ne_bytes).concat();
        stream.write_all(&[&header[..], &outcome.to_ne_bytes()].concat())
    }
}

/// What the message is whose `header` is next in the socket, all of it there; taken out if it is a well-formed SET_VRING_ENABLE.
///
/// # Errors
/// The socket's.
pub(super) fn next(mut stream: &UnixStream, header: Header) -> io::Result<Next> {
    let Header { request, flags, size } = header;
    match request {
        SET_FEATURES => Ok(Next::Features),
        SET_VRING_ENABLE if flags & VERSION_MASK == VERSION && size == 8 => {
            let mut message = [0; HEADER + 8];
            // A descriptor that came along is closed by the kernel, as nobody receives it.
            stream.read_exact(&mut message)?;
            let [.., a, b, c, d, e, f, g, h] = message;
            let [index, state] = [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes);
            let answer = Answer { wanted: flags & NEED_REPLY != 0 };
            Ok(Next::Enable { index, enable: state != 0, answer })
        }
        _ => Ok(Next::Dispatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(front_end: &mut UnixStream, request: u32, flags: u32, payload: &[u8]) {
        let size = u32::try_from(payload.len()).unwrap();
        let header = [request, flags, size].map(u32::to_ne_bytes).concat();
        front_end.write_all(&[&header, payload].concat()).unwrap();
    }

    #[test]
    fn an_early_enable_is_taken_out_and_answered_and_the_rest_stays() {
        let (mut front_end, stream) = UnixStream::pair().unwrap();
        let payload = [1u32, 1].map(u32::to_ne_bytes).concat();
        send(&mut front_end, SET_VRING_ENABLE, VERSION | NEED_REPLY, &payload);
        send(&mut front_end, SET_FEATURES, VERSION, &[0; 8]);
        let header = Header { request: SET_VRING_ENABLE, flags: VERSION | NEED_REPLY, size: 8 };
        let Next::Enable { index: 1, enable: true, answer } = next(&stream, header).unwrap() else {
            panic!()
        };
        answer.send(&stream, true).unwrap();
        let mut reply = [0xff; 20];
        front_end.read_exact(&mut reply).unwrap();
        assert_eq!(reply[12..], [0; 8]);
        let header = Header { request: SET_FEATURES, flags: VERSION, size: 8 };
        assert!(matches!(next(&stream, header).unwrap(), Next::Features));
        let mut left = [0; 20];
        (&stream).read_exact(&mut left).unwrap();
        assert_eq!(left[..4], SET_FEATURES.to_ne_bytes(), "looking does not take it");
    }

    #[test]
    fn what_is_malformed_is_the_dispatchers() {
        let (_front_end, stream) = UnixStream::pair().unwrap();
        for (flags, size) in [(VERSION, 4), (0, 8), (2, 8)] {
            let header = Header { request: SET_VRING_ENABLE, flags, size };
            assert!(matches!(next(&stream, header).unwrap(), Next::Dispatch));
        }
    }
}
