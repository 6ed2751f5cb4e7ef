//! The tasks of this host by name, and their NICs' way to the worker and back.
//!
//! What must stay true: a NIC goes to the port that the core gave its attachment, and is taken back from the same; when
//! [`Tasks::unplug`] returns, the worker has let go of it, and its interface is gone unless somebody else holds it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nve_core::pipeline::{Nve, PortId};

use super::message::{self, Answer};
use super::{Nic, Report, Status};
use crate::device::handover::WorkerLink;
use crate::uplink::Uplink;

/// Why a task was not plugged in, or out.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// The config has no such task.
    #[error("there is no attachment \"{0}\" of kind \"tun\"")]
    Unknown(String),
    /// There is nothing to take out.
    #[error("{0} is not plugged in")]
    NotPlugged(String),
    /// The worker could not watch it, or has ended.
    #[error("the worker did not take it: {0}")]
    Worker(#[from] io::Error),
}

/// One task: configured, and perhaps plugged in.
#[derive(Debug, Default)]
struct Task {
    status: Arc<Status>,
    /// Where the worker was given its NIC.
    port: Option<PortId>,
    /// Told of the end.
    holder: Option<UnixStream>,
}

/// All tasks.
#[derive(Debug)]
pub struct Tasks {
    nve: Arc<Nve>,
    worker: WorkerLink,
    tasks: Mutex<BTreeMap<String, Task>>,
}

impl Tasks {
    /// None yet.
    pub(crate) fn new(nve: Arc<Nve>, worker: WorkerLink) -> Self {
        Self { nve, worker, tasks: Mutex::default() }
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the tasks those called `names`; those that stay are not disturbed. Call it after `Nve::apply`, which numbers them.
    pub(crate) fn apply(&self, names: &[String]) {
        let mut tasks = self.tasks();
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut *tasks).into_iter().partition(|(name, _)| names.contains(name));
        *tasks = kept;
        for (_, mut task) in gone {
            self.take_back(&mut task, "its attachment was removed from the config");
        }
        for name in names {
            tasks.entry(name.clone()).or_default();
        }
    }

    /// Hands `tun`, whose interface is called so, to the worker as the NIC of `name`, in place of one it had. `holder` is told when that ends.
    ///
    /// # Errors
    /// See [`PlugError`]; one it had is gone then, too, unless the task is unknown.
    pub fn plug(
        &self,
        name: &str,
        tun: Box<dyn Uplink>,
        interface: &str,
        holder: Option<UnixStream>,
    ) -> Result<(), PlugError> {
        let mut tasks = self.tasks();
        let unknown = || PlugError::Unknown(name.to_owned());
        let task = tasks.get_mut(name).ok_or_else(unknown)?;
        let port = self.nve.port(name).ok_or_else(unknown)?;
        let mac = self
            .nve
            .world()
            .attachment(port)
            .filter(|attachment| attachment.is_task())
            .ok_or_else(unknown)?
            .mac
            .0;
        self.take_back(task, "another TUN was plugged in");
        task.status.plugged(interface);
        let nic = Nic { tun, mac, status: Arc::clone(&task.status) };
        self.worker.plug(port, nic).inspect_err(|e| task.status.lost(e.to_string()))?;
        (task.port, task.holder) = (Some(port), holder);
        Ok(())
    }

    /// Takes the NIC of `name` out again.
    ///
    /// # Errors
    /// There is none.
    pub fn unplug(&self, name: &str) -> Result<(), PlugError> {
        let mut tasks = self.tasks();
        let task = tasks.get_mut(name).ok_or_else(|| PlugError::Unknown(name.to_owned()))?;
        if !self.take_back(task, "it was unplugged") {
            return Err(PlugError::NotPlugged(name.to_owned()));
        }
        Ok(())
    }

    /// Notes that a descriptor for `name` was refused.
    pub(super) fn refused(&self, name: &str, why: &str) {
        if let Some(task) = self.tasks().get(name) {
            task.status.refused(why.to_owned());
        }
    }

    /// Whether the worker had one. Its holder hears `why`.
    fn take_back(&self, task: &mut Task, why: &str) -> bool {
        // A worker that has ended has nothing.
        let had = task.port.take().is_some_and(|port| self.worker.unplug(port).unwrap_or(false));
        task.status.unplugged();
        if let Some(holder) = task.holder.take() {
            // One that does not listen hears nothing, and does not hold us up.
            let _ = holder.set_nonblocking(true);
            let _ = message::answer(&holder, &Answer::Ended(why.to_owned()));
        }
        had
    }

    /// What an operator sees of each.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        self.tasks().iter().map(|(name, task)| task.status.report(name)).collect()
    }
}
