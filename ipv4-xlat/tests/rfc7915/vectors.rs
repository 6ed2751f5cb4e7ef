//! Packets as data: `tests/vectors/*.toml`, made by scapy (`tests/oracle/siit.py vectors` at the repository's root).
//!
//! `in` is a packet; `out` the packets it becomes, `drop` the reason it does not, `answer` the ICMP error its sender gets.
//! Hexadecimal; a line that begins with `#` is a remark. `zero_udp` is the policy where it is not the default.

use std::fs;
use std::path::Path;

use ipv4_xlat::address::rfc6052::Prefix;
use ipv4_xlat::address::siit::Siit;
use ipv4_xlat::generated::{icmpv4_error, icmpv6_error};
use ipv4_xlat::{IcmpError, Packet, Refusal, SCRATCH_LEN, ZeroUdpChecksum, v4_to_v6, v6_to_v4};
use toml::{Table, Value};

use crate::lab::*;

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect()
}

/// What happened to a packet, in the words of the files.
#[derive(Debug, PartialEq)]
enum Fate {
    Out(Vec<Vec<u8>>),
    Drop(String),
    Answer(Vec<u8>),
}

fn wanted(vector: &Table) -> Fate {
    if let Some(out) = vector.get("out") {
        return Fate::Out(out.as_array().expect("a list").iter().map(bytes).collect());
    }
    match vector.get("drop") {
        Some(reason) => Fate::Drop(reason.as_str().expect("a name").to_owned()),
        None => Fate::Answer(bytes(&vector["answer"])),
    }
}

fn fate(vector: &Table) -> Fate {
    let packet = bytes(&vector["in"]);
    let pool = Prefix::new("2001:db8:64::".parse().unwrap(), 96).unwrap();
    let map = Siit { pool6: Some(pool), ..Siit::default() };
    let config = config(|s| {
        s.zero_udp_checksum = match vector.get("zero_udp").and_then(Value::as_str) {
            Some("compute") => ZeroUdpChecksum::Compute,
            Some("forward") => ZeroUdpChecksum::Forward,
            other => {
                assert_eq!(other, None, "unknown policy");
                ZeroUdpChecksum::Drop
            }
        }
    });
    let mut scratch = [0; SCRATCH_LEN];
    let outcome = match packet[0] >> 4 {
        4 => v4_to_v6::translate(&Packet::whole(&packet), &map, &config, &mut scratch),
        _ => v6_to_v4::translate(&Packet::whole(&packet), &map, &config, 1, &mut scratch),
    };
    match outcome {
        Ok(translated) => Fate::Out(send(&translated, &mut scratch, &packet)),
        Err(Refusal::Silent(reason)) => Fate::Drop(format!("{reason:?}")),
        Err(Refusal::Icmp(_, error)) => {
            let len = match error {
                IcmpError::V4(error) => {
                    icmpv4_error(&error, "198.51.100.1".parse().unwrap(), 1, &packet, &mut scratch)
                }
                IcmpError::V6(error) => {
                    icmpv6_error(&error, "2001:db8:ffff::1".parse().unwrap(), &packet, &mut scratch)
                }
            };
            Fate::Answer(scratch[..len.expect("may be answered")].to_vec())
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn every_vector_becomes_what_scapy_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let vector: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        for key in ["rfc", "why", "in"] {
            assert!(vector.contains_key(key), "{}: no {key}", path.display());
        }
        let (fate, wanted) = (fate(&vector), wanted(&vector));
        assert!(fate == wanted, "{}:\n{fate:02x?}\nscapy:\n{wanted:02x?}", path.display());
        count += 1;
    }
    assert!(count >= 50, "the vectors are there");
}
