//! How often is answered: a flood of one protocol is dropped by name, and the others do not notice.

use super::*;

#[test]
fn a_flood_of_one_protocol_leaves_the_others_answered() {
    let ctx = context();
    let frames = any_bytes::answered();
    let kind = |frame: &[u8]| classify(&ctx, frame).and_then(Kind::bucket).expect("for the gateway");
    let kinds: Vec<_> = frames.iter().map(|frame| kind(frame)).collect();
    use Protocol::{Arp, Dhcp, Icmp, Nd, Ra};
    assert_eq!(kinds, [Arp, Ra, Nd, Dhcp, Icmp, Icmp, Dhcp]);
    for flood in &frames {
        let (mut limits, mut out) = (Limits::default(), [0; 2048]);
        let mut ask =
            |frame: &[u8]| answer(&ctx, &mut limits, Duration::ZERO, &Frame::whole(frame), &mut out);
        let refused = (0..2000).filter(|_| ask(flood) == Answer::Drop(DropReason::GatewayRate)).count();
        assert!(refused >= 1000, "{:?}: {refused} of 2000 refused", kind(flood));
        for other in frames.iter().filter(|other| kind(other) != kind(flood)) {
            let answer = ask(other);
            assert!(
                matches!(answer, Answer::Reply(_)),
                "{:?} after {:?}: {answer:?}",
                kind(other),
                kind(flood)
            );
        }
    }
}
