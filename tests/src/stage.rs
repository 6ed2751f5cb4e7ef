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

/// Memory of its own that a daemon may hold more after a series than before it, in KiB: what an allocator keeps, not what leaks.
const SLACK: u64 = 256;

/// The site with all who are on it.
pub struct Stage {
    /// Hosts and daemons.
    pub site: Site,
    /// [`VM1`].
    pub guest: Guest,
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
        let mut stage = Stage { site, guest, partners };
        stage.talk()?;
        stage.recovery(SystemTime::now(), Duration::from_secs(20))?;
        Ok(stage)
    }

    /// Another guest in the place of the last.
    ///
    /// # Errors
    ///
    /// Fails when it does not come up.
    pub fn power_on_another(&mut self) -> Result<()> {
        self.guest = self.site.power_on_only(&[VM1])?.pop().context("no guest")?;
        Ok(())
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
    /// Fails when it does, when packets do not flow within [`LIMIT`], or when something is left behind.
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
            let took = self.recovery(event, LIMIT).with_context(|| format!("{name}, time {time}"))?;
            recoveries.push(took);
            check.count(1);
        }
        let after = self.site.daemons[0].footprint()?;
        let slowest = recoveries.iter().max().copied().unwrap_or_default();
        println!("{name}: {} times, packets flowed both ways after {slowest:?} at most", recoveries.len());
        println!("    held before: {before:?}\n    held after:  {after:?}");
        must_be_no_more(before, after).with_context(|| name.to_owned())?;
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

/// Fails when `after` is more than `before`.
///
/// # Errors
///
/// See above.
pub fn must_be_no_more(before: Footprint, after: Footprint) -> Result<()> {
    ensure!(
        after.files <= before.files
            && after.maps <= before.maps
            && after.guest_memory <= before.guest_memory
            && after.threads <= before.threads
            && after.own <= before.own + SLACK,
        "the daemon held {before:?}, and holds {after:?}"
    );
    Ok(())
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
