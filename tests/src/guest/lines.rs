//! Lines of text on a socket, each waited for until a limit.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// The harness's end of a stream of lines.
pub(super) struct Lines {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Lines {
    pub(super) fn new(stream: UnixStream) -> Result<Lines> {
        stream.set_nonblocking(false)?;
        let writer = stream.try_clone()?;
        Ok(Lines { reader: BufReader::new(stream), writer })
    }

    /// Writes `line` and what ends it.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        Ok(self.writer.write_all(format!("{line}\n").as_bytes())?)
    }

    /// The next line, with what ends it; at the latest `limit` after `start`.
    pub(super) fn next(&mut self, start: Instant, limit: Duration) -> Result<String> {
        let mut line = Vec::new();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            ensure!(!left.is_zero(), "no answer within {} s", limit.as_secs());
            self.reader.get_ref().set_read_timeout(Some(left))?;
            match self.reader.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => return Ok(String::from_utf8_lossy(&line).into_owned()),
                Ok(_) => bail!("QEMU closed the line"),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
