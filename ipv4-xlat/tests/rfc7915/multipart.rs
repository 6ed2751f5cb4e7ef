//! ICMP errors with extensions: checklist E, RFC 4884.

use ipv4_xlat::Reason;

use crate::lab::*;

/// An extension structure: header with a checksum nobody here looks at, one object of `len` bytes.
fn extension(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x20, 0, 0x12, 0x34];
    bytes.extend((len as u16 + 4).to_be_bytes());
    bytes.extend([1, 1]);
    bytes.extend(data(len));
    bytes
}

/// A quote padded to `len` bytes.
fn padded(mut quote: Vec<u8>, len: usize) -> Vec<u8> {
    quote.resize(len, 0);
    quote
}

fn inner4(len: usize) -> Vec<u8> {
    v4_between(B4, A4, 17, udp(&data(len - 28))).bytes()
}

fn inner6(len: usize) -> Vec<u8> {
    v6_between(b6(), a6(), 17, udp(&data(len - 48))).bytes()
}

/// An IPv4 error with a datagram part and an extension.
fn multipart4(icmp_type: u8, code: u8, datagram: &[u8], extension: &[u8]) -> V4 {
    let words = (datagram.len() / 4) as u8;
    v4(1, icmp(icmp_type, code, [0, words, 0, 0], &[datagram, extension].concat()))
}

/// The same in IPv6.
fn multipart6(icmp_type: u8, datagram: &[u8], extension: &[u8]) -> V6 {
    let words = (datagram.len() / 8) as u8;
    v6(58, icmp(icmp_type, 0, [words, 0, 0, 0], &[datagram, extension].concat()))
}

/// The length attribute in bytes, the datagram part and the extension.
fn parts(packet: &[u8]) -> (usize, &[u8], &[u8]) {
    let message = l4(packet);
    let len = if packet[0] >> 4 == 4 { usize::from(message[5]) * 4 } else { usize::from(message[4]) * 8 };
    let body = &message[8..];
    if len == 0 { (0, body, &[]) } else { (len, &body[..len], &body[len..]) }
}

#[test]
fn the_length_attribute_is_recounted_and_the_extension_kept_as_it_is() {
    for object in [0, 4, 40] {
        let packet = to_v6(&multipart4(11, 0, &padded(inner4(60), 128), &extension(object)), &defaults());
        let (len, datagram, ext) = parts(&packet);
        // 128 - 20 + 40 = 148, padded to 152.
        assert_eq!((len, ext), (152, &extension(object)[..]));
        assert!(datagram[80..].iter().all(|byte| *byte == 0));

        let packet = to_v4(&multipart6(3, &padded(inner6(80), 152), &extension(object)), &defaults());
        let (len, datagram, ext) = parts(&packet);
        assert_eq!((len, ext), (132, &extension(object)[..]));
        assert!(datagram[60..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_short_datagram_part_is_padded_to_128_bytes() {
    // 64 bytes of IPv6 become 44 of IPv4.
    let packet = to_v4(&multipart6(1, &inner6(64), &extension(4)), &defaults());
    let (len, datagram, ext) = parts(&packet);
    assert_eq!((len, datagram.len(), ext), (128, 128, &extension(4)[..]));
    assert!(datagram[44..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_length_attribute_under_128_is_taken_at_its_word() {
    for len in [28, 32, 64, 124] {
        let packet = to_v6(&multipart4(11, 0, &padded(inner4(28), len), &extension(4)), &defaults());
        let (attribute, _, ext) = parts(&packet);
        assert_eq!((attribute, ext), ((len + 20).next_multiple_of(8).max(128), &extension(4)[..]), "{len}");
    }
    // 0: there is no extension, all is datagram.
    let packet = v4(1, icmp(11, 0, [0; 4], &[padded(inner4(28), 128), extension(4)].concat()));
    let packet = to_v6(&packet, &defaults());
    assert_eq!((parts(&packet).0, packet.len()), (0, 48 + 148 + 12));
    // 1 word: no header fits in it.
    let packet = v4(1, icmp(11, 0, [0, 1, 0, 0], &padded(inner4(28), 128)));
    assert_eq!(silent(run46(&packet.bytes(), &defaults())), Reason::BadQuote);
}

#[test]
fn a_length_attribute_beyond_the_message_is_dropped_and_one_that_fills_it_means_no_extension() {
    let error = |words| v4(1, icmp(11, 0, [0, words, 0, 0], &padded(inner4(28), 128)));
    assert_eq!(silent(run46(&error(33).bytes(), &defaults())), Reason::MultipartLength);
    assert_eq!(silent(run46(&error(255).bytes(), &defaults())), Reason::MultipartLength);
    assert_eq!(parts(&to_v6(&error(32), &defaults())).0, 0);
    let error = |words| v6(58, icmp(3, 0, [words, 0, 0, 0], &padded(inner6(48), 128)));
    assert_eq!(silent(run64(&error(17).bytes(), &defaults())), Reason::MultipartLength);
    assert_eq!(parts(&to_v4(&error(16), &defaults())).0, 0);
}

#[test]
fn the_datagram_is_cut_for_the_extensions_sake() {
    let packet = to_v4(&multipart6(3, &inner6(800), &extension(100)), &defaults());
    assert_eq!(packet.len(), 576);
    let (len, datagram, ext) = parts(&packet);
    assert_eq!((len, ext), (576 - 28 - 108, &extension(100)[..]));
    assert_eq!(datagram[28..], inner6(800)[48..48 + len - 28]);

    let packet = to_v6(&multipart4(11, 0, &inner4(1020), &extension(300)), &defaults());
    let (len, _, ext) = parts(&packet);
    assert_eq!((len, ext), ((1280 - 48 - 308) / 8 * 8, &extension(300)[..]));
}

#[test]
fn an_extension_that_leaves_no_room_for_128_bytes_is_left_out_whole() {
    // 548 bytes of room: 128 + 420 fits, 128 + 424 does not.
    let packet = to_v4(&multipart6(3, &inner6(128), &extension(412)), &defaults());
    assert_eq!(parts(&packet).0, 128);
    let packet = to_v4(&multipart6(3, &inner6(128), &extension(416)), &defaults());
    let (len, datagram, ext) = parts(&packet);
    assert_eq!((len, datagram.len(), ext), (0, 108, &[][..]));
    // 1232 bytes of room in IPv6.
    let packet = to_v6(&multipart4(11, 0, &inner4(128), &extension(1100)), &defaults());
    assert_eq!((parts(&packet).0, packet.len()), (0, 48 + 148));
}

#[test]
fn types_without_a_length_attribute_lose_the_extension() {
    for (code, expected) in [(4, (2, 0)), (2, (4, 1))] {
        let packet = to_v6(&multipart4(3, code, &padded(inner4(60), 128), &extension(4)), &defaults());
        assert_eq!((l4(&packet)[0], l4(&packet)[1]), expected);
        assert_eq!(packet.len(), 48 + 148);
        assert_eq!(u32_at(l4(&packet), 4), if code == 4 { 1280 } else { 6 });
    }
    // Type 12 as well: its counterpart's word is all pointer.
    let error = icmp(12, 0, [8, 32, 0, 0], &[padded(inner4(60), 128), extension(4)].concat());
    let packet = to_v6(&v4(1, error), &defaults());
    assert_eq!((u32_at(l4(&packet), 4), packet.len()), (7, 48 + 148));
    // And from IPv6, where the octet is part of the MTU or pointer.
    let error = icmp(2, 0, 0x0000_0500_u32.to_be_bytes(), &inner6(80));
    let packet = to_v4(&v6(58, error), &defaults());
    assert_eq!((u32_at(l4(&packet), 4), packet.len()), (1260, 28 + 60));
}

#[test]
fn addresses_inside_an_extension_are_not_translated() {
    // An RFC 5837 interface object with an IPv4 address that is mapped.
    let mut object = vec![0x20, 0, 0, 0, 0, 12, 2, 0x0a, 0, 1, 0, 0];
    object.extend(A4.octets());
    let packet = to_v6(&multipart4(11, 0, &padded(inner4(60), 128), &object), &defaults());
    assert_eq!(parts(&packet).2, object);
}
