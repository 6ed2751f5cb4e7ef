//! Packets quoted in ICMP errors: checklist E (RFC 7915 4.3, 5.3; RFC 4884).

use crate::lab::*;

#[test]
fn a_time_exceeded_error_comes_back_with_its_quote_translated() {
    let inner = v4_between(B4, A4, 17, udp(&data(20))).bytes();
    let packet = to_v6(&v4(1, icmp(11, 0, [0; 4], &inner)), &defaults());
    assert_eq!(&l4(&packet)[..2], &[3, 0]);
    assert_sound(quoted(&packet));

    let inner = v6_between(b6(), a6(), 6, tcp(&data(20))).bytes();
    let packet = to_v4(&v6(58, icmp(3, 0, [0; 4], &inner)), &defaults());
    assert_eq!(&l4(&packet)[..2], &[11, 0]);
    assert_sound(quoted(&packet));
}
