//! SET_VRING_ENABLE before SET_FEATURES.
//!
//! QEMU enables the rings of a vhost-user NIC when it makes the device, long before its guest negotiates features. The dispatcher of
//! the `vhost` crate refuses that message as long as no features were set, and ends the connection; so it is taken out of the
//! stream before the dispatcher sees it. Everything else is left to the dispatcher, well-formed or not.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

/// SET_FEATURES (vhost-user, "Front-end message types").
const SET_FEATURES: u32 = 2;
const SET_VRING_ENABLE: u32 = 18;

/// Request, flags and size of the payload, 32 bits each in the machine's byte order.
const HEADER: usize = 12;
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

/// Waits for the next message and looks at its header, which stays in the socket, unless it is a well-formed SET_VRING_ENABLE.
///
/// # Errors
/// The socket's.
pub(super) fn next(mut stream: &UnixStream) -> io::Result<Next> {
    let mut bytes = [0; HEADER];
    if peek(stream, &mut bytes)? < HEADER {
        // Gone, or cut off: the dispatcher says which.
        return Ok(Next::Dispatch);
    }
    let [request, flags, size] = words(bytes);
    match request {
        SET_FEATURES => Ok(Next::Features),
        SET_VRING_ENABLE if flags & VERSION_MASK == VERSION && size == 8 => {
            let mut message = [0; HEADER + 8];
            // A descriptor that came along is closed by the kernel, as nobody receives it.
            stream.read_exact(&mut message)?;
            let mut payload = [0; HEADER];
            payload[..8].copy_from_slice(&message[HEADER..]);
            let [index, state, _] = words(payload);
            let answer = Answer { wanted: flags & NEED_REPLY != 0 };
            Ok(Next::Enable { index, enable: state != 0, answer })
        }
        _ => Ok(Next::Dispatch),
    }
}

/// Three numbers in the machine's byte order.
fn words(bytes: [u8; HEADER]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes)
}

/// Copies what comes next without taking it, waiting until `bytes` is full or the peer is gone; how much it was.
fn peek(stream: &UnixStream, bytes: &mut [u8; HEADER]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_WAITALL;
    // SAFETY: `bytes` is a live buffer of the length given, and the descriptor is open as long as `stream` is borrowed.
    let got = unsafe { libc::recv(stream.as_raw_fd(), bytes.as_mut_ptr().cast(), HEADER, flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
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
        let Next::Enable { index: 1, enable: true, answer } = next(&stream).unwrap() else { panic!() };
        answer.send(&stream, true).unwrap();
        let mut reply = [0xff; 20];
        front_end.read_exact(&mut reply).unwrap();
        assert_eq!(reply[12..], [0; 8]);
        assert!(matches!(next(&stream).unwrap(), Next::Features));
        assert!(matches!(next(&stream).unwrap(), Next::Features), "looking does not take it");
    }

    #[test]
    fn what_is_malformed_or_cut_off_is_the_dispatchers() {
        let (mut front_end, stream) = UnixStream::pair().unwrap();
        send(&mut front_end, SET_VRING_ENABLE, VERSION, &[0; 4]);
        assert!(matches!(next(&stream).unwrap(), Next::Dispatch));
        let (mut front_end, stream) = UnixStream::pair().unwrap();
        front_end.write_all(&[18, 0, 0]).unwrap();
        drop(front_end);
        assert!(matches!(next(&stream).unwrap(), Next::Dispatch));
    }
}
