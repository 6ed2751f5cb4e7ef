//! Check 13: conversations from random numbers, over a real socket. The daemon lives, only that connection closes, all that it held is
//! given back.

use vhost_ila_tests::ringpeer::beside::Beside;
use vhost_ila_tests::ringpeer::hostile::Connection;
use vhost_ila_tests::ringpeer::messages::Hand;
use vhost_ila_tests::scoreboard::Check;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn whatever_is_said_in_whatever_order() {
    let mut check = Check::begin(13, "messages");
    let mut host = Beside::start("e2e/any-messages").unwrap();
    for (name, bytes) in check.regressions() {
        let connection = Connection::to(&host.socket).unwrap();
        drop(connection.negotiate());
        drop(connection.say_bytes(&bytes, &[]));
        drop(connection);
        host.recovered(&name).unwrap();
    }
    let mut hand = Hand::new(check.dice()).unwrap();
    let before = host.footprint().unwrap();
    let (length, many) = check.scale((400, 4_000), (4_000, 1_000_000));
    let (mut said, mut conversations) = (0, 0);
    while said < many {
        // A spoilt message costs its sender a quarter of a second: that many for every one that is long.
        let more = match conversations % 4 {
            0 => hand.converse(&host.socket, length, |bytes| check.trying(bytes)).unwrap(),
            _ => hand.quarrel(&host.socket, |bytes| check.trying(bytes)).unwrap(),
        };
        said += more;
        check.count(more);
        conversations += 1;
        if conversations % 16 == 0 {
            host.unharmed(&format!("conversation {conversations} of seed {}", check.seed())).unwrap();
        }
        if conversations % 256 == 0 {
            host.recovered("conversations").unwrap();
            host.must_return_to(&before).unwrap();
        }
    }
    println!("{conversations} conversations");
    host.end().unwrap();
}
