//! Front-ends and drivers that want what is not offered: refused when they say so, by name.

use vhost_frontend::VhostBackend;
use vhost_frontend::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost_frontend::vhost_user::{Frontend, VhostUserFrontend};
use vhost_ila_tests::process::wait_for;
use vhost_ila_tests::ringpeer::beside::{GATEWAY, HONEST};
use vhost_ila_tests::ringpeer::{Options, Peer, bits, connect};
use vhost_ila_tests::scoreboard::Check;
use vhost_ila_tests::site::{Plan, Site, VM1};
use virtio_bindings::virtio_config::{
    VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_net::VIRTIO_NET_F_RSS;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_viommu_a_legacy_driver_and_packed_rings_are_refused_by_name_and_the_next_driver_is_served() {
    let mut check = Check::begin(27, "refusals");
    let mut site = Site::start("e2e/refusals", Plan::of(&[VM1, HONEST])).unwrap();
    let mut neighbour = Peer::connect(&site.socket(&HONEST), Options::default()).unwrap();
    let modern = bits(&[VIRTIO_F_VERSION_1]) | PROTOCOL_FEATURES;
    for (features, why) in [
        (modern | bits(&[VIRTIO_F_ACCESS_PLATFORM]), "access_platform: a vIOMMU (bit 33), not offered"),
        (modern | bits(&[VIRTIO_F_RING_PACKED]), "ring_packed (bit 34), not offered"),
        (modern | bits(&[VIRTIO_F_NOTIFICATION_DATA]), "notification_data (bit 38), not offered"),
        (modern | bits(&[VIRTIO_NET_F_RSS]), "rss (bit 60), not offered"),
        (PROTOCOL_FEATURES, "without version_1 (bit 32): legacy drivers are not served"),
    ] {
        let mut frontend = Frontend::from_stream(connect(&site.socket(&VM1)).unwrap(), 2);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap() & features & !modern, 0, "{why}, but offered");
        frontend.set_protocol_features(VhostUserProtocolFeatures::REPLY_ACK).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(features).expect_err(why);
        wait_for(why, std::time::Duration::from_secs(5), || {
            Ok(site.daemons[0].show("attachments")?.to_string().contains(why).then_some(()))
        })
        .unwrap();
        let log = std::fs::read_to_string(site.evidence.join("hv1.log")).unwrap();
        assert!(log.contains(why), "the log does not say: {why}");
        neighbour.must_resolve(&HONEST, GATEWAY).unwrap();
        let mut next = Peer::connect(&site.socket(&VM1), Options::default()).unwrap();
        next.must_resolve(&VM1, GATEWAY).unwrap();
        check.count(1);
    }
    site.daemons_must_run().unwrap();
}
