//! What would go on the wire to this host's own locator: it is walked as if it had come from there (docs/decisions/0014).
//!
//! ```text
//!   leave.rs ──> head in scratch, tail of the frame ──copied──> turned: the first bytes of the packet on the wire
//!                                                                 └──> enter.rs ──> Local: new head in scratch, tail of the frame again
//! ```
//!
//! What must stay true: both edges judge, as on two hosts; the payload stays where it is; nothing goes around twice, because what enters
//! from here goes to an attachment or nowhere.

use super::enter::{self, Whence};
use super::question::{self, Form};
use super::rewrite4::next_piece_of_pending;
use super::walk::{Stop, Walk};
use super::wire::Arriving;
use super::{Again, Fate, Question, Rewritten, Scratch};
use crate::DropReason;
use crate::packet::Frame;
use crate::packet::ipv6::Ipv6;

/// Bytes of a packet that are copied: every header, and an ICMP error whole.
pub(super) const ROOM: usize = 2048;

/// A fragment's own header, which the next fragment is made from.
const FRAGMENT_HEAD: usize = 48;

/// `packet`, of which `frame` is the original and which is addressed to our locator, to whom it is for.
#[cold]
pub(crate) fn around(
    walk: &mut Walk<'_>,
    packet: &Rewritten,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let mut turned = core::mem::take(walk.turned);
    let fate = turn(walk, &mut turned, packet, frame, scratch);
    *walk.turned = turned;
    fate
}

fn turn(
    walk: &mut Walk<'_>,
    turned: &mut [u8],
    packet: &Rewritten,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let head = scratch.head.get(packet.head.clone()).ok_or(DropReason::Malformed)?;
    let tail = packet.tail.start..packet.tail.end.min(frame.head.len()).max(packet.tail.start);
    let tail = frame.head.get(tail).unwrap_or_default();
    let copied = head.iter().chain(tail);
    let have = turned.iter_mut().zip(copied).map(|(to, from)| *to = *from).count();
    let bytes = turned.get(..have).unwrap_or_default();
    let arrived = Frame { head: bytes, len: packet.len(), offload: packet.offload };
    let mut question = Question::default();
    question::from_wire(walk.world, &arrived, &mut question);
    match question.form {
        // From here: made as the draft has it.
        Form::Arrived | Form::ArrivedTwisted => {}
        Form::Refused(reason) => return Err(reason.into()),
        _ => return Err(unless_whole(frame)),
    }
    let header = Ipv6::read(&arrived, 0)?;
    // No kernel forwarded it: no hop is given back.
    let hop_limit = header.hop_limit();
    let arriving = Arriving { question: &question, frame: &arrived, header, hop_limit, whence: Whence::Here };
    match enter::here(walk, arriving, scratch) {
        Ok(Fate::Local(port, shown)) => {
            let shown = with_tail_of_frame(shown, packet, bytes, scratch).ok_or(DropReason::Malformed)?;
            Ok(Fate::Local(port, shown))
        }
        Ok(_) => Err(DropReason::NotLocal.into()),
        Err(Stop::Again(Again::Whole)) => Err(unless_whole(frame)),
        // The other edge says nothing to a neighbour that it would say to the fabric.
        Err(Stop::Owed(reason, _)) => Err(reason.into()),
        Err(stop) => Err(stop),
    }
}

/// More is needed; where there is no more, its headers are longer than any may be.
fn unless_whole(frame: &Frame<'_>) -> Stop {
    if frame.is_whole() { DropReason::ExtensionHeader.into() } else { Stop::Again(Again::Whole) }
}

/// `shown`, whose tail is one of the turned packet, with one of the frame; what of it the frame does not have comes from `bytes`.
fn with_tail_of_frame(
    shown: Rewritten,
    packet: &Rewritten,
    bytes: &[u8],
    scratch: &mut Scratch,
) -> Option<Rewritten> {
    let written = packet.head.len();
    let between = shown.tail.start.min(written)..shown.tail.end.min(written);
    let kept = bytes.get(between)?;
    let end = shown.head.end + kept.len();
    scratch.head.get_mut(shown.head.end..end)?.copy_from_slice(kept);
    let of_frame = |at: usize| packet.tail.start + at.saturating_sub(written);
    let tail =
        if shown.tail.is_empty() { 0..0 } else { of_frame(shown.tail.start)..of_frame(shown.tail.end) };
    Some(Rewritten { head: shown.head.start..end, tail, ..shown })
}

/// The next fragment of the packet that goes around.
pub(crate) fn next_piece(
    walk: &mut Walk<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Option<Fate>, Stop> {
    // The last one was made into what its receiver is shown; its own header is where it was turned.
    if let (Some(to), Some(from)) =
        (scratch.head.first_chunk_mut::<FRAGMENT_HEAD>(), walk.turned.first_chunk::<FRAGMENT_HEAD>())
    {
        *to = *from;
    }
    piece(walk, frame, scratch)
}

/// A fragment, of which the scratch buffer has the header.
pub(crate) fn piece(
    walk: &mut Walk<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Option<Fate>, Stop> {
    let Some(piece) = next_piece_of_pending(walk, scratch) else { return Ok(None) };
    let fate = around(walk, &piece, frame, scratch)?;
    match fate {
        Fate::Local(port, shown) => Ok(Some(Fate::Local(port, Rewritten { more: true, ..shown }))),
        fate => Ok(Some(fate)),
    }
}
