//! `replay`, the command. What it writes is tested beside `replay/`.

use crate::{answer, example, refusal};

/// A pcap of one Ethernet frame that is neither IP nor ARP (type 0x88b5), from vm1's MAC.
fn capture() -> Vec<u8> {
    let frame = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5, 0, 0];
    let mut bytes = Vec::new();
    // File header: magic, version 2.4, zone, accuracy, snap length, link type. Packet header: seconds, microseconds, lengths.
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1, 1_700_000_000, 5, 16, 16_u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(frame);
    bytes
}

#[test]
fn a_capture_goes_through_the_pipeline_of_the_config() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (input, output) = (directory.path().join("in.pcap"), directory.path().join("out.pcapng"));
    std::fs::write(&input, capture()).expect("written");
    let (input, output) = (input.to_str().expect("text"), output.to_str().expect("text"));
    let config = example("two-hosts/hv1");
    let config = config.to_str().expect("text");
    insta::assert_snapshot!(answer(&["replay", "--config", config, "--from", "vm1", input, output]), @r"
           1 packets read
           0 delivered to the uplink
           0 answered
           1 dropped: ether-type
    ");
    let written = std::fs::read(output).expect("read");
    let comment = b"drop=ether-type";
    assert!(written.windows(comment.len()).any(|window| window == comment));

    let refused = refusal(&["replay", "--config", config, "--from", "vm9", input, output]);
    assert!(refused.contains("there is no attachment vm9"), "{refused}");
    let refused = refusal(&["replay", "--config", config, "--from", "vm1", input, input]);
    assert!(refused.contains("cannot be both read and written"), "{refused}");
}
