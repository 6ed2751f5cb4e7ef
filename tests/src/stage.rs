//! A guest that talks with two partners all the time, and a series of one and the same thing that befalls it.
//!
//! ```text
//!   hv1: vm1 (QEMU) and near (front-end) on one daemon        hv2: vm2 (front-end)        vm1 <──> near, vm1 <──> vm2
//!
//!   series: what the daemon holds ──> [ event ──> packets both ways, with both partners ] x times ──> what it holds: the same
//! ```

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::daemon::Footprint;
use crate::guest::Guest;
use crate::process::wait_for;
use crate::ringpeer::partner::{Partner, Recovery};
use crate::scoreboard::Check;
use crate::site::{Plan, Site, VM1, VM2, Vm};

/// The guest's partner on its own host.
pub const NEAR: Vm =
    Vm { name: "near", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };

/// What answers for all neighbours.
const GATEWAY_MAC: &str = "02:49:4c:41:00:01";

/// From a driver's being ready, or a daemon's, until packets flow both ways.
pub const LIMIT: Duration = Duration::from_secs(2);

/// The site with all who are on it.
pub struct Stage {
    /// Hosts and daemons.
    pub site: Site,
    /// [`VM1`].
    pub guest: Guest,
    /// From an event until packets flow both ways, at most.
    pub limit: Duration,
    partners: [Partner; 2],
}

/// What came of a series.
#[derive(Clone, Debug)]
pub struct Series {
    /// For each time: until the later of all ways was open.
    pub recoveries: Vec<Duration>,
    /// What the guest's daemon held before and after.
    pub footprints: [Footprint; 2],
}

impl Stage {
    /// Boots the guest, which has its address and talks when this returns. The plan says in which direction daemons connect;
    /// its machines are set here.
    ///
    /// # Errors
    ///
    /// Fails when something does not come up.
    pub fn start(evidence: &str, plan: Plan) -> Result<Stage> {
        let site = Site::start(evidence, Plan { vms: vec![VM1, NEAR, VM2], ..plan })?;
        let partners = [Partner::begin(&site, &NEAR, &VM1)?, Partner::begin(&site, &VM2, &VM1)?];
        let guest = site.power_on_only(&[VM1])?.pop().context("no guest")?;
        let mut stage = Stage { site, guest, limit: LIMIT, partners };
        stage.talk()?;
        stage.recovery(SystemTime::now(), Duration::from_secs(20))?;
        Ok(stage)
    }

    /// Gives a fresh guest its address and lets it begin to ask: what its owner's own start-up would do.
    ///
    /// # Errors
    ///
    /// Fails when the guest does.
    pub fn talk(&mut self) -> Result<()> {
        let pings = Partner::pings(&[NEAR, VM2]);
        self.guest.run(&format!("{}; {pings}", address()))?;
        Ok(())
    }

    /// Waits until all ways are open after `event`, and says how long that took.
    ///
    /// # Errors
    ///
    /// Fails when it takes longer than `limit`, when a daemon ended, or when a packet was wrong.
    pub fn recovery(&mut self, event: SystemTime, limit: Duration) -> Result<Duration> {
        let mut latest = Duration::ZERO;
        for partner in &self.partners {
            // A little more than the limit: a late recovery is better news than none.
            let recovery = partner.recovery(event, limit * 3)?;
            latest = latest.max(Recovery::both(recovery));
        }
        self.site.daemons_must_run()?;
        ensure!(latest <= limit, "it took {latest:?} until packets flowed both ways");
        Ok(latest)
    }

    /// Nothing comes from the guest and nothing reaches it, for a third of a second.
    ///
    /// # Errors
    ///
    /// Fails when something does.
    pub fn must_be_silent(&self) -> Result<()> {
        // What was under way may arrive.
        std::thread::sleep(Duration::from_millis(100));
        let now = SystemTime::now();
        std::thread::sleep(Duration::from_millis(300));
        let heard = self.partners.each_ref().map(|partner| partner.heard_since(now));
        ensure!(heard == [(0, 0); 2], "questions and answers came: {heard:?}");
        Ok(())
    }

    /// Lets `befall` happen `times` times, each time waiting for packets both ways after the moment that it returns; the daemon
    /// holds no more after it than before. `check` counts.
    ///
    /// # Errors
    ///
    /// Fails when it does, when packets do not flow within the limit, or when something is left behind.
    pub fn series(
        &mut self,
        check: &mut Check,
        (name, times): (&str, u32),
        mut befall: impl FnMut(&mut Stage) -> Result<SystemTime>,
    ) -> Result<Series> {
        let before = self.site.daemons[0].footprint()?;
        let mut recoveries = Vec::new();
        for time in 1..=times {
            let event = befall(self).with_context(|| format!("{name}, time {time}"))?;
            let took = self.recovery(event, self.limit).with_context(|| format!("{name}, time {time}"))?;
            recoveries.push(took);
            check.count(1);
        }
        let after = self.site.daemons[0].footprint()?;
        let slowest = recoveries.iter().max().copied().unwrap_or_default();
        println!("{name}: {} times, packets flowed both ways after {slowest:?} at most", recoveries.len());
        println!("    held before: {before:?}\n    held after:  {after:?}");
        after.must_be_no_more_than(&before).with_context(|| name.to_owned())?;
        Ok(Series { recoveries, footprints: [before, after] })
    }

    /// Ends all of it.
    ///
    /// # Errors
    ///
    /// Fails when a packet was wrong, or a daemon ended.
    pub fn end(mut self) -> Result<()> {
        self.partners.into_iter().try_for_each(Partner::end)?;
        self.site.daemons_must_run()
    }
}

/// The command that brings the link up with the guest's address. Neighbours are given: those that cannot be reached are asked for
/// once a second only, which is the guest's affair and would be taken for the daemon's.
fn address() -> String {
    let neighbours = [NEAR, VM2].map(|to| format!("arp -s {} {GATEWAY_MAC}", to.ipv4)).join(" && ");
    format!("ip link set eth0 up && ip addr add {}/16 dev eth0 && {neighbours}", VM1.ipv4)
}

/// What befalls a guest. Each returns when the driver is ready again: from then on, packets are waited for.
pub mod befall {
    use super::*;

    /// Bytes of a guest's memory, and of what is plugged in besides.
    const GUEST_MEMORY: u64 = 256 << 20;
    const PLUGGED: u64 = 128 << 20;

    /// The driver lets go of the card and takes it again.
    ///
    /// # Errors
    ///
    /// As the guest does.
    pub fn rebind(stage: &mut Stage) -> Result<SystemTime> {
        const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_net";
        let device = stage.guest.run("basename $(readlink -f /sys/class/net/eth0/device)")?;
        let device = device.trim();
        stage.guest.run(&format!("echo {device} >{DRIVER}/unbind && [ ! -e /sys/class/net/eth0 ]"))?;
        let event = SystemTime::now();
        stage.guest.run(&format!("echo {device} >{DRIVER}/bind && {}", address()))?;
        Ok(event)
    }

    /// The guest's own reboot.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub fn reboot(stage: &mut Stage) -> Result<SystemTime> {
        stage.guest.send("reboot -f")?;
        ready(stage)
    }

    /// The machine's reset button.
    ///
    /// # Errors
    ///
    /// As [`reboot`].
    pub fn reset(stage: &mut Stage) -> Result<SystemTime> {
        stage.guest.monitor().execute("system_reset", json!({}))?;
        ready(stage)
    }

    /// Another kernel, without a reset of the machine: the card is found as the last one left it.
    ///
    /// # Errors
    ///
    /// As [`reboot`]; also when it was a reset after all.
    pub fn kexec(stage: &mut Stage) -> Result<SystemTime> {
        // Of what the initramfs was made; mount points are directories in it.
        let pack = "cd / && find . -xdev -path './tmp/*' -prune -o -print | cpio -o -H newc >/tmp/initramfs";
        let load = "kexec -c -l /boot/vmlinuz --initrd=/tmp/initramfs --append=\"$(cat /proc/cmdline)\"";
        stage.guest.run(&format!("{pack} && {load}"))?;
        stage.guest.monitor().forget()?;
        stage.guest.send("kexec -e")?;
        let event = ready(stage)?;
        let reset = stage.guest.monitor().wait_for("RESET", Duration::from_millis(1));
        ensure!(reset.is_err(), "the machine was reset: that was no kexec");
        Ok(event)
    }

    /// The link's MTU shrinks and grows; packets as long as it allows pass.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub fn mtu(stage: &mut Stage) -> Result<SystemTime> {
        let mut event = SystemTime::now();
        for mtu in [1280, 576, crate::site::LINK_MTU] {
            event = SystemTime::now();
            let length = mtu - 28;
            let pings = [NEAR, VM2].map(|to| format!("ping -c 2 -i 0.1 -s {length} {}", to.ipv4));
            stage.guest.run(&format!("ip link set eth0 mtu {mtu} && {}", pings.join(" && ")))?;
        }
        Ok(event)
    }

    /// The cable is pulled and put in again. Meanwhile nothing passes.
    ///
    /// # Errors
    ///
    /// When something does.
    pub fn cable(stage: &mut Stage) -> Result<SystemTime> {
        set_link(stage, false)?;
        stage.must_be_silent()?;
        let event = SystemTime::now();
        set_link(stage, true)?;
        Ok(event)
    }

    /// The guest's daemon is killed and started again; QEMU comes back to it, or it to QEMU.
    ///
    /// # Errors
    ///
    /// When they do not come together again within five seconds.
    pub fn killed_daemon(stage: &mut Stage) -> Result<SystemTime> {
        stage.guest.monitor().forget()?;
        stage.site.daemons[0].kill()?;
        stage.guest.monitor().wait_for("NETDEV_VHOST_USER_DISCONNECTED", Duration::from_secs(5))?;
        stage.site.daemons[0].restart()?;
        let event = stage.guest.monitor().wait_for("NETDEV_VHOST_USER_CONNECTED", Duration::from_secs(5))?;
        Ok(event.at)
    }

    /// QEMU is killed, and another boots in its place.
    ///
    /// # Errors
    ///
    /// When it does not; also when the daemon still has memory of the first one's meanwhile.
    pub fn killed_qemu(stage: &mut Stage) -> Result<SystemTime> {
        let before = stage.site.daemons[0].footprint()?;
        stage.guest.kill()?;
        wait_for("the daemon to let go of a killed guest's memory", Duration::from_secs(5), || {
            let after = stage.site.daemons[0].footprint()?;
            let released = before.guest_memory.saturating_sub(after.guest_memory) >= GUEST_MEMORY;
            Ok((released && after.files < before.files).then_some(()))
        })?;
        stage.guest = stage.site.power_on_only(&[VM1])?.pop().context("no guest")?;
        let event = SystemTime::now();
        stage.talk()?;
        Ok(event)
    }

    /// Daemon and QEMU are killed. QEMU is the first to be started again.
    ///
    /// # Errors
    ///
    /// When the guest does not come up.
    pub fn killed_both(stage: &mut Stage) -> Result<SystemTime> {
        stage.site.daemons[0].kill()?;
        stage.guest.kill()?;
        stage.guest = stage.site.switch_on(&[VM1])?.pop().context("no guest")?;
        // It finds nobody there, more than once.
        std::thread::sleep(Duration::from_millis(700));
        stage.site.daemons[0].restart()?;
        ready(stage)
    }

    /// Memory is plugged in, the guest uses it, and it is taken out again. The daemon has it mapped exactly meanwhile.
    ///
    /// # Errors
    ///
    /// When packets stop flowing at any time, or something else is mapped.
    pub fn memory(stage: &mut Stage) -> Result<SystemTime> {
        const BLOCKS: &str = "cd /sys/devices/system/memory";
        let before = stage.site.daemons[0].footprint()?.guest_memory;
        let event = SystemTime::now();
        let monitor = stage.guest.monitor();
        monitor.forget()?;
        // Never the same name twice: QEMU 10 looks a memory file up by its name, and may find the last one's, closed.
        let more = format!("more-{}", event.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos());
        let backend =
            json!({ "qom-type": "memory-backend-memfd", "id": more, "size": PLUGGED, "share": true });
        monitor.execute("object-add", backend)?;
        monitor.execute("device_add", json!({ "driver": "pc-dimm", "id": "dimm", "memdev": more }))?;
        stage.guest.run(&format!(
            "{BLOCKS}; until grep -q offline memory*/state; do sleep 0.02; done; \
             for block in $(grep -l offline memory*/state); do echo online_movable >$block || exit 1; done"
        ))?;
        let with = stage.site.daemons[0].footprint()?.guest_memory;
        ensure!(with == before + PLUGGED, "{before} bytes were mapped, and {with} with {PLUGGED} more");
        // Files lie where memory can be taken away, if there is such.
        stage.guest.run("head -c 60000000 /dev/zero >/tmp/fill")?;
        stage.recovery(event, Duration::from_secs(20))?;
        let event = SystemTime::now();
        let monitor = stage.guest.monitor();
        monitor.execute("device_del", json!({ "id": "dimm" }))?;
        monitor.wait_for("DEVICE_DELETED", Duration::from_secs(30))?;
        let without = stage.site.daemons[0].footprint()?.guest_memory;
        ensure!(without == before, "{before} bytes were mapped before, and {without} after");
        monitor.execute("object-del", json!({ "id": more }))?;
        stage.guest.run("rm /tmp/fill")?;
        Ok(event)
    }

    /// The driver says that it is ready, and the guest begins to talk.
    fn ready(stage: &mut Stage) -> Result<SystemTime> {
        stage.guest.wait_until_ready(Duration::from_secs(90))?;
        let event = SystemTime::now();
        stage.talk()?;
        Ok(event)
    }

    fn set_link(stage: &mut Stage, up: bool) -> Result<()> {
        stage.guest.monitor().execute("set_link", json!({ "name": "net0", "up": up }))?;
        let carrier =
            format!("until [ $(cat /sys/class/net/eth0/carrier) = {} ]; do sleep 0.02; done", u8::from(up));
        stage.guest.run_within(&carrier, Duration::from_secs(10)).map(drop)
    }
}
