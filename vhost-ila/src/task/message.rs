//! What is said on the plug socket: one request with one descriptor, one answer, and to those who hold the line a last word.
//!
//! What must stay true: a message is one line of JSON, sent and received whole.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

/// Bytes of the longest message.
const LONGEST: usize = 4096;
/// Descriptors there is room for, so that one too many is seen and closed.
const DESCRIPTORS: usize = 4;

/// What `vhost-ila plug` asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The attachment.
    pub plug: String,
    /// The connection stays, and is told of the end.
    pub hold: bool,
}

/// What the daemon says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The worker has it.
    Plugged,
    /// Nothing has changed; why.
    Refused(String),
    /// To those who hold the line: the worker has it no more; why.
    Ended(String),
}

/// A message that is none.
#[derive(Debug, thiserror::Error)]
pub enum Garbled {
    /// The other side has closed the connection.
    #[error("the connection has ended")]
    Ended,
    /// More or fewer descriptors than the message needs.
    #[error("{0}, not one")]
    Descriptors(&'static str),
    /// It is no line of JSON, or none that is known.
    #[error("a request that is not understood: {0}")]
    Unknown(String),
    /// The system's.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Sends `request` with `descriptor`.
///
/// # Errors
/// The system's.
pub fn ask(stream: &UnixStream, request: &Request, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let line = line(request)?;
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives a request and its descriptor, close-on-exec.
///
/// # Errors
/// It is [`Garbled`]; what came with it is closed.
pub fn asked(stream: &UnixStream) -> Result<(Request, OwnedFd), Garbled> {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    let passed = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors: Vec<OwnedFd> = passed.flatten().collect();
    if received.bytes == 0 {
        return Err(Garbled::Ended);
    }
    let descriptor = descriptors.pop().ok_or(Garbled::Descriptors("no descriptor"))?;
    if !descriptors.is_empty() || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Garbled::Descriptors("several descriptors"));
    }
    let line = bytes.get(..received.bytes).and_then(|line| line.strip_suffix(b"\n"));
    let line = line.ok_or_else(|| Garbled::Unknown("it does not end".into()))?;
    let request = serde_json::from_slice(line).map_err(|e| Garbled::Unknown(e.to_string()))?;
    Ok((request, descriptor))
}

/// Says `answer`.
///
/// # Errors
/// The system's; the other side has gone, or does not read.
pub fn answer(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    stream.write_all(&line(answer)?)
}

/// Waits for an answer; `stream` is kept from one to the next.
///
/// # Errors
/// It is [`Garbled`]: the daemon has ended, for instance.
pub fn answered(stream: &mut BufReader<UnixStream>) -> Result<Answer, Garbled> {
    let mut line = String::new();
    if stream.by_ref().take(LONGEST as u64).read_line(&mut line)? == 0 {
        return Err(Garbled::Ended);
    }
    serde_json::from_str(&line).map_err(|e| Garbled::Unknown(e.to_string()))
}

fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
