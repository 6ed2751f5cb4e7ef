//! `id`: identifiers for tasks, from the command line.

use std::collections::HashSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::{answer, refusal, refusal_with};

fn registrar<'a>(state: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["id", "registrar", "--registrar", "0xabcdef", "--state", state], more].concat()
}

/// What is printed, each checked to be an identifier of 60 bits whose low word has a neutral form.
#[track_caller]
fn identifiers(text: &str) -> Vec<u64> {
    let read = |line: &str| {
        assert_eq!(line.len(), 15, "{line}");
        let bits = u64::from_str_radix(line, 16).expect("hexadecimal");
        assert!(!matches!(bits as u16, 0 | 0xffff), "{line}");
        bits
    };
    text.lines().map(read).collect()
}

#[test]
fn a_registrar_never_repeats_itself_over_processes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().join("state");
    let state = state.to_str().expect("text");
    let run = |_| {
        let binary = Command::new(env!("CARGO_BIN_EXE_vhost-ila"))
            .args(registrar(state, &["--count", "200"]))
            .stdout(Stdio::piped())
            .spawn();
        binary.expect("the binary runs")
    };
    let processes: Vec<_> = (0..8).map(run).collect();
    let mut seen = HashSet::new();
    for process in processes {
        let output = process.wait_with_output().expect("it ends");
        let issued = identifiers(&String::from_utf8(output.stdout).expect("text"));
        assert_eq!(issued.len(), 200);
        assert!(issued.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(issued.iter().all(|bits| bits >> 36 == 0xabcdef));
        assert!(issued.into_iter().all(|bits| seen.insert(bits)), "given out twice");
    }
}

/// The clock stands before what was issued last, as one does that was set back.
#[test]
fn a_registrar_goes_on_where_it_was_when_the_clock_is_behind() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().to_str().expect("text");
    fs::write(directory.path().join("registrar-0xabcdef"), "f00001234\n").expect("written");
    let issued = identifiers(&answer(&registrar(state, &["--count", "2"])));
    assert_eq!(issued, [0x0abc_deff_0000_1235, 0x0abc_deff_0000_1236]);
    assert_eq!(fs::read_to_string(directory.path().join("registrar-0xabcdef")).expect("read"), "f00001236\n");
    let of_another = ["id", "registrar", "--registrar", "1", "--state", state];
    assert!(identifiers(&answer(&of_another))[0] < 0x001f_0000_0000, "each has its own");
}

#[test]
fn what_was_issued_and_cannot_be_read_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().to_str().expect("text");
    let file = directory.path().join("registrar-0xabcdef");
    for damaged in ["", "\n", "000000001 000000002\n", "1000000000\n"] {
        fs::write(&file, damaged).expect("written");
        let refused = refusal(&registrar(state, &[]));
        assert!(
            refused.contains("registrar-0xabcdef") && refused.contains("another registrar number"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&file).expect("read"), damaged);
    }
    fs::write(&file, "fffffffff\n").expect("written");
    assert!(refusal(&registrar(state, &[])).contains("used up"));
    fs::write(&file, "000000001\n").expect("written");
    assert_eq!(identifiers(&answer(&registrar(state, &[]))).len(), 1, "and a sound one serves");
}

#[test]
fn identifiers_of_time_and_host_differ_and_say_how_likely_they_collide() {
    let host = ["id", "rfc4193", "--eui64", "50:54:00:ff:fe:12:34:56"];
    let issued = identifiers(&answer(&[&host[..], &["--count", "1000"]].concat()));
    assert_eq!(issued.into_iter().collect::<HashSet<_>>().len(), 1000);
    let told = answer(&[&host[..], &["--among", "1000000"]].concat());
    assert!(told.ends_with("\ntwo of 1000000 are the same with a probability of 4.3368e-7\n"), "{told}");
}

#[test]
fn an_identifier_is_written_as_the_address_to_configure() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().to_str().expect("text");
    fs::write(directory.path().join("registrar-0xabcdef"), "f00001234\n").expect("written");
    let sir = ["--sir", "2001:db8:51::/64"];
    assert_eq!(answer(&registrar(state, &sir)), "2001:db8:51:0:2abc:deff:0:1235\n");
    let decoded = answer(&["addr", "decode", "2001:db8:51:0:2abc:deff:0:1235", "--sir", sir[1], "--json"]);
    assert!(decoded.contains("\"type\":1") && decoded.contains("2abcdeff00001235"), "{decoded}");
}

#[test]
fn what_is_no_number_of_24_bits_or_no_eui_64_is_not_understood() {
    for wrong in ["0x1000000", "16777216", "hv1"] {
        let refused = refusal_with(2, &["id", "registrar", "--registrar", wrong]);
        assert!(refused.contains("24 bits"), "{refused}");
    }
    for wrong in ["52:54:00:12:34:56", "zz", "505400fffe1234567"] {
        let refused = refusal_with(2, &["id", "rfc4193", "--eui64", wrong]);
        assert!(refused.contains("16 hexadecimal digits"), "{refused}");
    }
    assert!(refusal_with(2, &["id", "registrar"]).contains("--registrar"));
}
