//! Open vSwitch over DPDK, with its own database and control sockets: a routed flow between two vhost-user ports.
//!
//! What must stay true: nothing of an installed Open vSwitch takes part; both daemons die with their owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Backend, Worked};
use crate::bench::case::{Case, To};
use crate::process::{Owned, output, wait_for};
use crate::sandbox;
use crate::testpmd::{hide_the_installed, numbers_after};
use crate::tools::Set;

/// How long either daemon may take to start.
const LIMIT: Duration = Duration::from_secs(30);

/// Two ports. What comes from either gets the other's addresses, as a router's flow would do it: three headers are rewritten.
const NEIGHBOURS: &[&str] = &[
    "add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure",
    "add-port br0 a -- set interface a type=dpdkvhostuser ofport_request=1",
    "add-port br0 b -- set interface b type=dpdkvhostuser ofport_request=2",
];
const NEIGHBOURS_FLOWS: &[(&str, &str)] = &[
    (
        "br0",
        "in_port=1,ip,actions=mod_dl_src:02:49:4c:41:00:01,mod_dl_dst:02:00:00:00:00:02,mod_nw_dst:10.1.0.2,output:2",
    ),
    (
        "br0",
        "in_port=2,ip,actions=mod_dl_src:02:49:4c:41:00:01,mod_dl_dst:02:00:00:00:00:01,mod_nw_dst:10.1.0.1,output:1",
    ),
];

/// A tenant's port, and the fabric's with the address that VXLAN's outer header has.
const WIRE: &[&str] = &[
    "add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=secure",
    "add-br br-phy -- set bridge br-phy datapath_type=netdev fail_mode=secure",
    "add-port br-int a -- set interface a type=dpdkvhostuser ofport_request=1",
    "add-port br-int vxlan0 -- set interface vxlan0 type=vxlan options:remote_ip=192.0.2.2 options:key=1001 ofport_request=2",
    "add-port br-phy b -- set interface b type=dpdkvhostuser ofport_request=1",
];
const WIRE_FLOWS: &[(&str, &str)] =
    &[("br-int", "in_port=1,actions=output:2"), ("br-phy", "in_port=LOCAL,actions=output:1")];

/// The running switch.
pub(super) struct Ovs {
    set: Set,
    runtime: PathBuf,
    sockets: [PathBuf; 2],
    switch: Owned,
    /// Ends after the switch.
    _database: Owned,
}

impl Ovs {
    pub(super) fn start(case: &Case, evidence: &Path) -> Result<Ovs> {
        hide_the_installed()?;
        let set = Set::open("ovs")?;
        let runtime = Path::new(sandbox::RUNTIME).join("ovs");
        if runtime.exists() {
            fs::remove_dir_all(&runtime)?;
        }
        fs::create_dir_all(&runtime)?;
        let database = runtime.join("conf.db");
        let mut create = tool(&set, "ovsdb-tool", &runtime)?;
        create.arg("create").arg(&database).arg(set.file("share/openvswitch/vswitch.ovsschema")?);
        output(create)?;
        let mut server = tool(&set, "ovsdb-server", &runtime)?;
        server.arg(&database).arg(format!("--remote=punix:{}", runtime.join("db.sock").display()));
        server.arg(format!("--unixctl={}", runtime.join("db.ctl").display()));
        let mut server = Owned::spawn("ovsdb-server", server, &evidence.join("ovsdb-server.log"))?;
        wait_for("ovsdb-server", LIMIT, || {
            server.must_run()?;
            Ok(runtime.join("db.sock").exists().then_some(()))
        })?;
        let drivers = set.file("lib/x86_64-linux-gnu/dpdk/pmds-23.0")?;
        let extra = format!(
            "--no-pci --single-file-segments --file-prefix=ovs --no-telemetry -d {}",
            drivers.display()
        );
        let mut init = configure(&set, &runtime)?;
        init.args(["--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true"]);
        init.args([
            "other_config:pmd-cpu-mask=0x1",
            "other_config:dpdk-lcore-mask=0x1",
            "other_config:dpdk-socket-mem=512",
        ]);
        init.arg(format!("other_config:dpdk-extra=\"{extra}\""));
        // What was learned and is not used is looked at every half second: not while it is measured.
        init.arg("other_config:max-idle=600000");
        output(init)?;
        let mut switch = tool(&set, "ovs-vswitchd-dpdk", &runtime)?;
        switch.arg(format!("unix:{}", runtime.join("db.sock").display()));
        switch.arg(format!("--unixctl={}", runtime.join("switch.ctl").display()));
        let switch = Owned::spawn("ovs-vswitchd", switch, &evidence.join("ovs-vswitchd.log"))?;
        let sockets = ["a", "b"].map(|name| runtime.join(name));
        let mut ovs = Ovs { set, runtime, sockets, switch, _database: server };
        match case.to {
            To::Neighbour => ovs.lay_out(NEIGHBOURS, NEIGHBOURS_FLOWS)?,
            To::Wire => {
                ovs.lay_out(WIRE, WIRE_FLOWS)?;
                ovs.address()?;
            }
        }
        Ok(ovs)
    }

    /// Bridges and ports, then flows.
    fn lay_out(&mut self, ports: &[&str], flows: &[(&str, &str)]) -> Result<()> {
        for line in ports {
            let mut command = configure(&self.set, &self.runtime)?;
            command.arg("--timeout=30").args(line.split(' '));
            output(command)?;
        }
        wait_for("the switch's sockets", LIMIT, || {
            self.switch.must_run()?;
            Ok(self.sockets.iter().all(|socket| socket.exists()).then_some(()))
        })?;
        for (bridge, flow) in flows {
            let mut command = tool(&self.set, "ovs-ofctl", &self.runtime)?;
            command.args(["add-flow", bridge, flow]);
            output(command)?;
        }
        Ok(())
    }

    /// The outer address, and the MAC of who is at the other end of the tunnel.
    fn address(&mut self) -> Result<()> {
        let ip = Set::open("net")?.tool("ip")?;
        for arguments in ["addr replace 192.0.2.1/24 dev br-phy", "link set br-phy up"] {
            let mut command = ip.command();
            command.args(arguments.split(' '));
            output(command)?;
        }
        wait_for("the switch to route to the tunnel's end", LIMIT, || {
            let route = self.ask("ovs/route/lookup 192.0.2.2");
            Ok(route.is_ok_and(|route| route.contains("br-phy")).then_some(()))
        })?;
        self.ask("tnl/neigh/set br-phy 192.0.2.2 02:00:00:00:00:99").map(drop)
    }

    fn ask(&mut self, what: &str) -> Result<String> {
        self.switch.must_run()?;
        let mut command = tool(&self.set, "ovs-appctl", &self.runtime)?;
        command.arg("-t").arg(self.runtime.join("switch.ctl")).args(what.split(' '));
        output(command)
    }
}

impl Backend for Ovs {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn id(&self) -> u32 {
        self.switch.id()
    }

    fn begin(&mut self) -> Result<()> {
        self.ask("dpif-netdev/pmd-stats-clear").map(drop)
    }

    fn end(&mut self) -> Result<Worked> {
        let said = self.ask("dpif-netdev/pmd-stats-show")?;
        let worker = said.split("main thread").next().unwrap_or_default();
        let number = |key: &str| {
            numbers_after(worker, key).first().copied().with_context(|| format!("no {key} in {said}"))
        };
        ensure!(number("packets received:")? > 10_000.0, "nothing circulates: {said}");
        // A flow's packets of a poll leave as one batch.
        Ok(Worked {
            cycles: number("avg processing cycles per packet:")?,
            per_poll: number("avg. packets per output batch:").ok(),
            longest: None,
            updates: None,
        })
    }
}

/// A program of the set that keeps to `runtime`.
fn tool(set: &Set, program: &str, runtime: &Path) -> Result<Command> {
    let mut command = set.tool(program)?.command();
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, runtime);
    }
    Ok(command)
}

fn configure(set: &Set, runtime: &Path) -> Result<Command> {
    let mut command = tool(set, "ovs-vsctl", runtime)?;
    command.arg(format!("--db=unix:{}", runtime.join("db.sock").display()));
    Ok(command)
}
