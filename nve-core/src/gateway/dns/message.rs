//! One DNS message (RFC 1035, 4; RFC 6891): what must be read of a query and of its answer, and the two answers made here.
//!
//! What must stay true: a message is passed on as it came but for its identification and the size an answer may have (RFC 5625, 4):
//! names, types and options that are not known here are not looked at. Reading is total over any bytes: names are walked without following
//! pointers, and every record takes at least eleven bytes.

use smoltcp::wire::{DnsFlags, DnsOpcode, DnsPacket, DnsRcode};

/// The header's length.
const HEADER: usize = 12;
/// A name's length on the wire at most (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;
/// What an answer over UDP may have where the query says nothing of its size (RFC 1035, 2.3.4).
const PLAIN_SIZE: u16 = 512;
/// The type of the pseudo-record of RFC 6891.
const OPT: u16 = 41;
/// An OPT record without options.
const EMPTY_OPT: usize = 11;
/// "DNSSEC OK" in an OPT record's flags (RFC 6891, 6.1.4).
const DNSSEC_OK: u8 = 0x80;

/// A query with exactly one question.
#[derive(Clone, Debug)]
pub(super) struct Query {
    message: Vec<u8>,
    /// Where the question ends.
    question_end: usize,
    /// Where the OPT record's fixed part begins, if it has one.
    opt: Option<usize>,
    /// The identification its sender gave it.
    id: u16,
    /// Bytes an answer may have.
    size: u16,
}

impl Query {
    /// Reads `message`, to which an answer of `room` bytes can be delivered. `None` if it is no query, has no or several questions, or is
    /// not whole.
    pub(super) fn read(message: &[u8], room: u16) -> Option<Self> {
        let packet = DnsPacket::new_checked(message).ok()?;
        let is_query = !packet.flags().contains(DnsFlags::RESPONSE) && packet.opcode() == DnsOpcode::Query;
        let counts = (packet.question_count(), packet.answer_record_count(), packet.authority_record_count());
        if !is_query || counts != (1, 0, 0) {
            return None;
        }
        let question_end = question_end(message)?;
        let opt = read_additional(message, question_end, packet.additional_record_count())?;
        let said = opt.and_then(|at| field(message, at + 3)).unwrap_or(PLAIN_SIZE);
        let size = said.max(PLAIN_SIZE).min(room);
        let id = packet.transaction_id();
        Some(Self { message: message.to_vec(), question_end, opt, id, size })
    }

    /// The message for a server, under the identification `id`. What the answer may have is what can be delivered: a server that knows
    /// cuts it off better than we could.
    pub(super) fn for_server(&self, id: u16) -> Vec<u8> {
        let mut message = self.message.clone();
        DnsPacket::new_unchecked(&mut message[..]).set_transaction_id(id);
        // A signature (TSIG) would cover the size, and stands behind it.
        let alone = DnsPacket::new_unchecked(&message[..]).additional_record_count() == 1;
        if let Some(at) = self.opt.filter(|_| alone)
            && let Some(room) = message.get_mut(at + 3..at + 5)
        {
            room.copy_from_slice(&self.size.to_be_bytes());
        }
        message
    }

    /// Whether both are one question under one identification.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.question() == other.question()
    }

    /// Name, type and class as they came.
    fn question(&self) -> &[u8] {
        self.message.get(HEADER..self.question_end).unwrap_or_default()
    }

    /// Reads `answer` as one to this question under the identification `id`: `None` if it is none. Names are compared as DNS does
    /// (RFC 1035, 3.1: case does not matter), type and class exactly.
    pub(super) fn answer(&self, id: u16, answer: &[u8]) -> Option<DnsRcode> {
        let packet = DnsPacket::new_checked(answer).ok()?;
        let is_answer = packet.flags().contains(DnsFlags::RESPONSE) && packet.opcode() == DnsOpcode::Query;
        if packet.transaction_id() != id || !is_answer || packet.question_count() != 1 {
            return None;
        }
        let question = answer.get(HEADER..question_end(answer)?)?;
        let (name, kind) = self.question().split_last_chunk::<4>()?;
        let (answered, answered_kind) = question.split_last_chunk::<4>()?;
        (name.eq_ignore_ascii_case(answered) && kind == answered_kind).then(|| packet.rcode())
    }

    /// `answer`, of which [`Query::answer`] said that it is one, for whoever asked: under the asker's identification, and cut down to
    /// its question where it is longer than the asker takes (TC, RFC 1035, 4.1.1).
    pub(super) fn for_asker(&self, mut answer: Vec<u8>) -> Vec<u8> {
        if answer.len() > usize::from(self.size) {
            let flags = DnsPacket::new_unchecked(&answer[..]).flags() | DnsFlags::TRUNCATED;
            let rcode = DnsPacket::new_unchecked(&answer[..]).rcode();
            return self.without_records(flags, rcode);
        }
        DnsPacket::new_unchecked(&mut answer[..]).set_transaction_id(self.id);
        answer
    }

    /// No server would say.
    pub(super) fn server_failure(&self) -> Vec<u8> {
        let asked = DnsPacket::new_unchecked(&self.message[..]).flags();
        let kept = asked & (DnsFlags::RECURSION_DESIRED | DnsFlags::CHECK_DISABLED);
        let flags = kept | DnsFlags::RESPONSE | DnsFlags::RECURSION_AVAILABLE;
        self.without_records(flags, DnsRcode::ServFail)
    }

    /// An answer of header and question, and of an OPT record where the query had one (RFC 6891, 6.1.1).
    fn without_records(&self, flags: DnsFlags, rcode: DnsRcode) -> Vec<u8> {
        let mut answer = vec![0; HEADER];
        answer.extend_from_slice(self.question());
        if let Some(at) = self.opt {
            let dnssec_ok = self.message.get(at + 7).copied().unwrap_or_default() & DNSSEC_OK;
            let [size_high, size_low] = self.size.to_be_bytes();
            let opt: [u8; EMPTY_OPT] = [0, 0, OPT as u8, size_high, size_low, 0, 0, dnssec_ok, 0, 0, 0];
            answer.extend_from_slice(&opt);
        }
        let mut packet = DnsPacket::new_unchecked(&mut answer[..]);
        packet.set_transaction_id(self.id);
        packet.set_flags(flags);
        packet.set_question_count(1);
        packet.set_additional_record_count(u16::from(self.opt.is_some()));
        if let Some(low) = answer.get_mut(3) {
            *low |= u8::from(rcode) & 0x0f;
        }
        answer
    }
}

/// Where the first question of `message` ends. Its name has nothing before it that it could point to.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            label @ 1..=63 => at += 1 + usize::from(label),
            _ => return None,
        }
    }
    let fits = at + 1 - HEADER <= LONGEST_NAME;
    (fits && message.len() >= at + 5).then_some(at + 5)
}

/// Walks the `count` records of a query's additional section, from `at` to the message's end: the place of the OPT record, if there is
/// one. `None` if they are not whole, more follows, or there are two (RFC 6891, 6.1.1).
fn read_additional(message: &[u8], mut at: usize, count: u16) -> Option<Option<usize>> {
    let mut opt = None;
    for _ in 0..count {
        let record = name_end(message, at)?;
        let kind = field(message, record)?;
        let data = usize::from(field(message, record + 8)?);
        if kind == OPT {
            // Its name is the root's: one byte.
            if record != at + 1 || opt.is_some() {
                return None;
            }
            opt = Some(at);
        }
        at = record + 10 + data;
    }
    (at == message.len()).then_some(opt)
}

/// Where the name that begins at `at` ends, a pointer included and not followed.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            label @ 1..=63 => at += 1 + usize::from(label),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Two bytes at `at`.
fn field(message: &[u8], at: usize) -> Option<u16> {
    let (bytes, _) = message.get(at..)?.split_first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x03www\x07example\x00\x00\x01\x00\x01";
    const ROOM: u16 = 1452;

    fn query(id: u16, counts: [u8; 4], rest: &[&[u8]]) -> Vec<u8> {
        let [questions, answers, authorities, additional] = counts;
        let id = id.to_be_bytes();
        let header = [id[0], id[1], 1, 0, 0, questions, 0, answers, 0, authorities, 0, additional];
        [&header[..], &rest.concat()].concat()
    }

    fn opt(size: u16, flags: u8, options: &[u8]) -> Vec<u8> {
        let [high, low] = size.to_be_bytes();
        [&[0, 0, 41, high, low, 0, 0, flags, 0, 0, options.len() as u8][..], options].concat()
    }

    fn plain() -> Query {
        Query::read(&query(7, [1, 0, 0, 0], &[QUESTION]), ROOM).expect("a query")
    }

    fn extended(size: u16) -> Query {
        Query::read(&query(7, [1, 0, 0, 1], &[QUESTION, &opt(size, 0x80, b"\0\x0a\0\x02ab")]), ROOM)
            .expect("a query")
    }

    #[test]
    fn only_the_identification_and_the_size_of_an_answer_change_on_the_way_to_a_server() {
        let sent = plain().for_server(0xabcd);
        assert_eq!(sent, query(0xabcd, [1, 0, 0, 0], &[QUESTION]));
        let sent = extended(4096).for_server(0xabcd);
        assert_eq!(sent, query(0xabcd, [1, 0, 0, 1], &[QUESTION, &opt(ROOM, 0x80, b"\0\x0a\0\x02ab")]));
        let small = extended(100).for_server(0xabcd);
        assert_eq!(small, query(0xabcd, [1, 0, 0, 1], &[QUESTION, &opt(512, 0x80, b"\0\x0a\0\x02ab")]));
    }

    #[test]
    fn a_signed_query_is_passed_on_with_the_size_it_was_signed_with() {
        let signature = b"\x03key\x00\x00\xfa\x00\xff\0\0\0\0\0\x02xy";
        let signed = query(7, [1, 0, 0, 2], &[QUESTION, &opt(4096, 0, b""), signature]);
        assert_eq!(Query::read(&signed, ROOM).expect("a query").for_server(7), signed);
    }

    #[test]
    fn what_is_no_single_question_is_refused() {
        let good = query(7, [1, 0, 0, 0], &[QUESTION]);
        assert!(Query::read(&good, ROOM).is_some());
        let mut answer = good.clone();
        answer[2] |= 0x80;
        let mut update = good.clone();
        update[2] |= 5 << 3;
        let long = [&[63; 64][..]; 4].concat();
        let two_opts = [opt(512, 0, b""), opt(512, 0, b"")].concat();
        let bad = [
            answer,
            update,
            query(7, [0, 0, 0, 0], &[]),
            query(7, [2, 0, 0, 0], &[QUESTION, QUESTION]),
            query(7, [1, 1, 0, 0], &[QUESTION, &opt(512, 0, b"")]),
            query(7, [1, 0, 1, 0], &[QUESTION, &opt(512, 0, b"")]),
            query(7, [1, 0, 0, 0], &[QUESTION, b"more"]),
            query(7, [1, 0, 0, 1], &[QUESTION]),
            query(7, [1, 0, 0, 2], &[QUESTION, &two_opts]),
            query(7, [1, 0, 0, 1], &[QUESTION, b"\x01x", &opt(512, 0, b"")]),
            query(7, [1, 0, 0, 0], &[b"\xc0\x0c\0\x01\0\x01"]),
            query(7, [1, 0, 0, 0], &[&long, b"\0\0\x01\0\x01"]),
        ];
        for (number, message) in bad.iter().enumerate() {
            assert!(Query::read(message, ROOM).is_none(), "number {number}");
        }
        for cut in 0..good.len() {
            assert!(Query::read(&good[..cut], ROOM).is_none(), "cut to {cut}");
        }
    }

    fn reply(id: u16, flags: [u8; 2], question: &[u8], records: &[u8]) -> Vec<u8> {
        let id = id.to_be_bytes();
        [&[id[0], id[1], flags[0], flags[1], 0, 1, 0, 1, 0, 0, 0, 0][..], question, records].concat()
    }

    #[test]
    fn an_answer_has_the_identification_and_the_question_of_what_was_asked() {
        let query = plain();
        let good = reply(0xabcd, [0x81, 0x80], QUESTION, b"record");
        assert_eq!(query.answer(0xabcd, &good), Some(DnsRcode::NoError));
        let loud = reply(0xabcd, [0x81, 0x83], b"\x03WWW\x07eXample\x00\x00\x01\x00\x01", b"record");
        assert_eq!(query.answer(0xabcd, &loud), Some(DnsRcode::NXDomain), "case is no difference");
        let other_type = b"\x03www\x07example\x00\x00\x1c\x00\x01";
        let other_name = b"\x03wwx\x07example\x00\x00\x01\x00\x01";
        for bad in [
            reply(0xabce, [0x81, 0x80], QUESTION, b"record"),
            reply(0xabcd, [0x01, 0x80], QUESTION, b"record"),
            reply(0xabcd, [0xa9, 0x80], QUESTION, b"record"),
            reply(0xabcd, [0x81, 0x80], other_type, b"record"),
            reply(0xabcd, [0x81, 0x80], other_name, b"record"),
            reply(0xabcd, [0x81, 0x80], b"", b""),
            good[..20].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(query.answer(0xabcd, &bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_asker_gets_its_own_identification_back_and_the_rest_untouched() {
        let good = reply(0xabcd, [0x85, 0xa0], QUESTION, b"record");
        assert_eq!(plain().for_asker(good), reply(7, [0x85, 0xa0], QUESTION, b"record"));
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_down_to_its_question_and_says_so() {
        let long = |len: usize| reply(0xabcd, [0x85, 0x83], QUESTION, &vec![1; len - 12 - QUESTION.len()]);
        assert_eq!(plain().for_asker(long(512)).len(), 512, "fits");
        let cut = plain().for_asker(long(513));
        assert_eq!(cut[..12], [0, 7, 0x87, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&cut[12..], QUESTION);

        assert_eq!(extended(4096).for_asker(long(1452)).len(), 1452, "as much as the link takes");
        let cut = extended(4096).for_asker(long(1453));
        assert_eq!(cut[..12], [0, 7, 0x87, 0x83, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(cut[12..], [QUESTION, &opt(1452, 0x80, b"")].concat());
    }

    #[test]
    fn a_server_failure_is_an_answer_to_the_question() {
        let failure = plain().server_failure();
        assert_eq!(failure[..12], [0, 7, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plain().answer(7, &failure), Some(DnsRcode::ServFail));
        assert_eq!(extended(4096).server_failure()[11], 1, "with an OPT record where the query had one");
    }
}
