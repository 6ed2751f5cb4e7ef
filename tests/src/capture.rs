//! Captures of the fabric by dumpcap, read by tshark.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::namespace::Namespace;
use crate::process::{Owned, output, wait_for};
use crate::tools::Set;

/// A running capture.
pub struct Running {
    process: Owned,
    file: PathBuf,
}

impl Running {
    /// Captures `interfaces` of `namespace` into `file`, a pcapng with one section, and returns when it has begun.
    ///
    /// # Errors
    ///
    /// Fails when dumpcap cannot open an interface.
    pub fn start(namespace: &Namespace, interfaces: &[&str], file: &Path) -> Result<Running> {
        let mut command = namespace.tool(&Set::open("net")?.tool("dumpcap")?);
        // 64 MB of buffer each: the machine is slow, and a packet lost to the capture would look like one lost to us.
        command.args(["-q", "-B", "64"]);
        for interface in interfaces {
            command.args(["-i", interface]);
        }
        command.arg("-w").arg(file);
        let log = file.with_extension("dumpcap.log");
        let mut process = Owned::spawn("dumpcap", command, &log)?;
        // The file appears before the sockets are bound; dumpcap says so when they are.
        wait_for("dumpcap to begin", Duration::from_secs(20), || {
            process.must_run().with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
            Ok(std::fs::read_to_string(&log)?.contains("File: ").then_some(()))
        })?;
        Ok(Running { process, file: file.to_owned() })
    }

    /// Ends the capture.
    ///
    /// # Errors
    ///
    /// Fails when dumpcap does not write its file out.
    pub fn finish(mut self) -> Result<Capture> {
        // What is still on its way through a veth is on no one's clock.
        std::thread::sleep(Duration::from_millis(300));
        self.process.end(Signal::INT, Duration::from_secs(20))?;
        Ok(Capture { file: self.file.clone() })
    }
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The pcapng file.
    pub file: PathBuf,
}

impl Capture {
    /// The `fields` of each packet that the display filter lets through, in order of capture.
    ///
    /// # Errors
    ///
    /// Fails as tshark does.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut command = Set::open("net")?.tool("tshark")?.command();
        command.arg("-n").arg("-r").arg(&self.file);
        // Checked whatever the capturing kernel says of it; off by default.
        for protocol in ["tcp", "udp"] {
            command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        command.args(["-Y", filter, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=f"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let text = output(command)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// How many packets that the display filter lets through carry a good, and how many another TCP, UDP or ICMPv6 checksum.
    ///
    /// # Errors
    ///
    /// As [`Capture::fields`].
    pub fn checksums(&self, filter: &str) -> Result<(usize, usize)> {
        let status = ["tcp", "udp", "icmpv6"].map(|protocol| format!("{protocol}.checksum.status"));
        let [tcp, udp, icmp] = &status;
        let fields = [icmp, udp, tcp, "tcp.checksum", "tcp.checksum_calculated"];
        let packets = self.fields(filter, &fields)?;
        let good = packets.iter().filter(|packet| packet.get(..5).is_some_and(is_good)).count();
        Ok((good, packets.len() - good))
    }

    /// How many packets the display filter lets through.
    ///
    /// # Errors
    ///
    /// As [`Capture::fields`].
    pub fn count(&self, filter: &str) -> Result<usize> {
        Ok(self.fields(filter, &["frame.number"])?.len())
    }
}

/// Of the fields that [`Capture::checksums`] asks for. An ICMPv6 error quotes another header; the first status of a field is the outer one.
fn is_good(fields: &[String]) -> bool {
    let [statuses @ .., tcp, calculated] = fields else { return false };
    // In ones' complement both are zero (RFC 1624, section 3). The kernel writes the one in TCP, too, and tshark wants the other.
    let zero = tcp == "0xffff" && calculated == "0x0000";
    statuses
        .iter()
        .position(|status| !status.is_empty())
        .is_some_and(|first| statuses[first] == "1" || first == 2 && zero)
}

#[cfg(test)]
mod tests {
    use super::is_good;

    #[test]
    fn both_zeros_of_tcp_are_good_and_the_outer_headers_checksum_counts() {
        let good = |fields: [&str; 5]| is_good(&fields.map(str::to_owned));
        assert!(good(["", "", "1", "0x1234", "0x1234"]));
        assert!(!good(["", "", "0", "0x1234", "0x1235"]));
        assert!(good(["", "", "0", "0xffff", "0x0000"]));
        assert!(!good(["", "", "0", "0xffff", "0x0001"]));
        assert!(good(["1", "", "0", "0x1234", "0x1235"]), "an error that quotes");
        assert!(!good(["0", "", "1", "0x1234", "0x1234"]));
        assert!(!good(["", "", "", "", ""]));
    }
}
