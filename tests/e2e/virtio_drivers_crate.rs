//! A driver with rings and descriptors of its own that nobody here has written: `virtio-drivers` (rcore-os), as a guest's.
//!
//! ```text
//!   VirtIONet ──Transport──> vhost-user messages (transport.rs) ──> vhost-ila <── a ringpeer, the neighbour
//!       └───────Hal────────> a memfd with bounce buffers (hal.rs)
//! ```

mod hal;
mod transport;

use std::net::Ipv4Addr;

use hal::Memfd;
use transport::{VhostUser, Waits};
use vhost_ila_tests::ringpeer::beside::{GATEWAY, HONEST};
use vhost_ila_tests::ringpeer::neighbours::{arp_request, datagram, is_between};
use vhost_ila_tests::ringpeer::{Options, Peer};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{Plan, Site, VM1};
use virtio_drivers::device::net::{TxBuffer, VirtIONet};

/// Descriptors of each ring.
const RING: usize = 16;

/// Where IPv4's addresses begin in a frame: what lies before them is made anew on the way (RFC 7915: identification, DF, checksum).
const ADDRESSES: usize = 26;

type Nic = VirtIONet<Memfd, VhostUser, RING>;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_virtio_drivers_crate_talks_to_a_neighbour_both_ways_and_is_called_for_each_frame() {
    let mut check = Check::begin(26, "datagrams");
    let mut site = Site::start("e2e/virtio-drivers", Plan::of(&[VM1, HONEST])).unwrap();
    let mut neighbour = Peer::connect(&site.socket(&HONEST), Options::default()).unwrap();
    // Bound, left, and bound again, as a guest does with its driver.
    for _ in 0..2 {
        let transport = VhostUser::connect(&site.socket(&VM1)).unwrap();
        let waits = transport.waits();
        let mut nic = Nic::new(transport, 2048).unwrap();
        assert_eq!(nic.mac_address().map(|byte| format!("{byte:02x}")).join(":"), VM1.mac);
        resolves(&mut nic, &waits);
        // Some laps of both rings.
        for number in 0..check.scale(500_u32, 100_000) {
            let payload =
                [&number.to_be_bytes()[..], &vec![0x5a; usize::try_from(number % 1400).unwrap()]].concat();
            let there = datagram(&VM1, &HONEST, &payload).unwrap();
            nic.send(TxBuffer::from(&there)).unwrap();
            let arrived = std::iter::from_fn(|| neighbour.receive(transport::LIMIT).unwrap());
            let arrived = arrived.map(|frame| frame.bytes).find(|frame| is_between(frame, &VM1, &HONEST));
            assert_eq!(
                arrived.expect("nothing arrived")[ADDRESSES..],
                there[ADDRESSES..],
                "datagram {number} there"
            );
            let back = datagram(&HONEST, &VM1, &payload).unwrap();
            neighbour.send(&back).unwrap();
            let arrived = receive(&mut nic, &waits, |frame| is_between(frame, &HONEST, &VM1));
            assert_eq!(arrived[ADDRESSES..], back[ADDRESSES..], "datagram {number} back");
            check.count(2);
        }
    }
    site.daemons_must_run().unwrap();
}

/// The gateway answers for its address, with its own MAC address.
fn resolves(nic: &mut Nic, waits: &Waits) {
    nic.send(TxBuffer::from(&arp_request(&VM1, GATEWAY).unwrap())).unwrap();
    let answer = receive(nic, waits, |frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 2]);
    assert_eq!(Ipv4Addr::from(<[u8; 4]>::try_from(&answer[28..32]).unwrap()), GATEWAY);
    assert_eq!(answer[..6], nic.mac_address());
    assert_eq!(answer[6..12], answer[22..28]);
}

/// The next frame that is `wanted`. The driver sleeps until it is called, as a guest does.
fn receive(nic: &mut Nic, waits: &Waits, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    loop {
        while nic.can_recv() {
            let buffer = nic.receive().unwrap();
            let frame = buffer.packet().to_vec();
            nic.recycle_rx_buffer(buffer).unwrap();
            if wanted(&frame) {
                return frame;
            }
        }
        waits.for_a_frame().unwrap();
    }
}
