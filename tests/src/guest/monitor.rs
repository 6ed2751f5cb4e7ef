//! The machine's own controls: QMP, one JSON object a line (QEMU's docs/interop/qmp-spec).
//!
//! A monitor is greeted when it is first used: a QEMU that waits for a daemon of its network card does not answer before.
//!
//! What must stay true: one command at a time, each with a limit; no event is lost, whatever was being waited for when it came.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::lines::Lines;

/// How long QEMU may take to answer a command.
const LIMIT: Duration = Duration::from_secs(20);

/// What QEMU says unasked.
#[derive(Clone, Debug)]
pub struct Event {
    /// `RESET`, `DEVICE_DELETED`, ...
    pub name: String,
    /// What it is about.
    pub data: Value,
    /// When it happened, by the clock of the machine that QEMU runs on.
    pub at: SystemTime,
}

/// A connection to a machine's monitor.
pub struct Monitor {
    lines: Lines,
    greeted: bool,
    events: VecDeque<Event>,
}

impl Monitor {
    /// The monitor of the QEMU at the other end of `stream`.
    pub(super) fn new(stream: UnixStream) -> Result<Monitor> {
        Ok(Monitor { lines: Lines::new(stream)?, greeted: false, events: VecDeque::new() })
    }

    fn greet(&mut self) -> Result<()> {
        if !self.greeted {
            self.greeted = true;
            self.lines.next(Instant::now(), LIMIT).context("QMP's greeting")?;
            self.execute("qmp_capabilities", json!({}))?;
        }
        Ok(())
    }

    /// Runs `command` and returns what it returns.
    ///
    /// # Errors
    ///
    /// Fails when QEMU refuses it or does not answer within 20 seconds.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.greet()?;
        let asked = json!({ "execute": command, "arguments": arguments });
        self.lines.say(&asked.to_string())?;
        let start = Instant::now();
        loop {
            let said = self.read(start, LIMIT).with_context(|| command.to_owned())?;
            match (said.get("return"), said.get("error")) {
                (Some(value), _) => return Ok(value.clone()),
                (_, Some(error)) => bail!("QMP: {asked}: {error}"),
                _ => {}
            }
        }
    }

    /// The first event called `name` that was not waited for yet, whenever it came.
    ///
    /// # Errors
    ///
    /// Fails when none comes within `limit`.
    pub fn wait_for(&mut self, name: &str, limit: Duration) -> Result<Event> {
        self.greet()?;
        let start = Instant::now();
        loop {
            let found = self.events.iter().position(|event| event.name == name);
            if let Some(event) = found.and_then(|at| self.events.remove(at)) {
                return Ok(event);
            }
            self.read(start, limit).with_context(|| format!("waiting for the event {name}"))?;
        }
    }

    /// Forgets all events that came until now.
    ///
    /// # Errors
    ///
    /// As [`Monitor::execute`].
    pub fn forget(&mut self) -> Result<()> {
        // Those before an answer are read with it.
        self.execute("query-name", json!({}))?;
        self.events.clear();
        Ok(())
    }

    /// The next object; events are also kept.
    fn read(&mut self, start: Instant, limit: Duration) -> Result<Value> {
        let line = self.lines.next(start, limit)?;
        let said: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        if let Some(name) = said["event"].as_str() {
            let part = |unit: &str| said["timestamp"][unit].as_u64().context("an event without its time");
            let since = Duration::from_secs(part("seconds")?) + Duration::from_micros(part("microseconds")?);
            let at = SystemTime::UNIX_EPOCH + since;
            self.events.push_back(Event { name: name.to_owned(), data: said["data"].clone(), at });
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_event_that_comes_before_an_answer_is_kept() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let event =
            r#"{"timestamp": {"seconds": 7, "microseconds": 5}, "event": "RESET", "data": {"guest": true}}"#;
        write!(theirs, "{{\"QMP\": {{}}}}\n{{\"return\": {{}}}}\n{event}\n{{\"return\": 3}}\n").unwrap();
        let mut monitor = Monitor::new(ours).unwrap();
        assert_eq!(monitor.execute("system_reset", json!({})).unwrap(), 3);
        let event = monitor.wait_for("RESET", Duration::from_secs(1)).unwrap();
        assert_eq!(event.data["guest"], true);
        assert_eq!(event.at, SystemTime::UNIX_EPOCH + Duration::from_micros(7_000_005));
        assert!(monitor.wait_for("RESET", Duration::from_millis(10)).is_err(), "it came once");
    }

    #[test]
    fn a_refused_command_says_why() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        write!(theirs, "{{\"QMP\": {{}}}}\n{{\"return\": {{}}}}\n{{\"error\": {{\"desc\": \"no\"}}}}\n")
            .unwrap();
        let mut monitor = Monitor::new(ours).unwrap();
        let error = monitor.execute("nonsense", json!({})).unwrap_err().to_string();
        assert!(error.contains("nonsense") && error.contains("no"), "{error}");
    }
}
