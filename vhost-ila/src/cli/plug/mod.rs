//! `plug` and `unplug`: the NIC of a host task, made here, put into its network namespace, and passed to the daemon.
//!
//! What must stay true: what is left in the namespace when a step fails is nothing, because the interface goes with our descriptor.
//!
//! ```text
//!   /v1/attachments: addresses, MTU ──> TUN in our own namespace ──> namespace.rs: moved, named, addressed, up ──> plug socket
//!   --hold: the descriptor stays open here, so the interface outlives the daemon; a new daemon is given it again
//! ```

mod namespace;

use std::io::BufReader;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::http::{Method, StatusCode};
use rustix::event::{PollFd, PollFlags, poll};

use crate::authority::StaticFile;
use crate::control::answer::{Attachment, Refusal};
use crate::control::client;
use crate::task::message::{self, Answer, Garbled, Request};
use crate::uplink::Tun;
use namespace::{Interface, Namespace};

/// Between two tries to reach a daemon that has ended.
const RETRY: Duration = Duration::from_millis(500);
/// How long a daemon that listens may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `plug ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The attachment, of kind "tun"
    name: String,
    /// The task's network namespace: a path, or a name in /run/netns
    #[arg(long, value_name = "NETNS")]
    netns: PathBuf,
    /// What the interface is called there
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    interface: String,
    /// What the task reaches by it, in place of everything; repeatable
    #[arg(long, value_name = "PREFIX", value_parser = prefix, default_value = "::/0")]
    route: Vec<(Ipv6Addr, u8)>,
    /// Stay, keep the interface when the daemon ends, and pass it to the next
    #[arg(long)]
    hold: bool,
}

/// `unplug ...`
#[derive(Debug, clap::Args)]
pub struct UnplugArgs {
    /// The attachment, of kind "tun"
    name: String,
}

fn prefix(text: &str) -> Result<(Ipv6Addr, u8), String> {
    let (address, length) = text.split_once('/').ok_or("write ADDRESS/LENGTH")?;
    let address = address.parse().map_err(|_| "write an IPv6 prefix, such as 2001:db8:51::/64")?;
    match length.parse() {
        Ok(length @ 0..=128) => Ok((address, length)),
        _ => Err("the length is 0 to 128".into()),
    }
}

/// Makes the NIC and passes it.
///
/// # Errors
/// There is no such task, no such namespace, or the daemon refuses; the namespace is as it was.
pub fn plug(args: &Args, config: &StaticFile) -> Result<String> {
    let Args { name, netns, interface, route, hold } = args;
    let attachment = attachment(name, &config.control_socket()?)?;
    let addresses = attachment.addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    let wanted = Interface {
        name: interface.clone(),
        mtu: attachment.mtu,
        addresses: addresses.collect(),
        routes: route.clone(),
    };
    let namespace = Namespace::open(netns)?;
    // Made in our own namespace: in the task's, our descriptor would keep that alive when everybody else has left it.
    let tun = Tun::make("ila%d").context("the TUN cannot be made")?;
    namespace.furnish(&tun.interface()?, &wanted)?;
    let socket = config.plug_socket()?;
    let stream = pass(name, &tun, &socket, *hold)?;
    let addresses: Vec<_> = wanted.addresses.iter().map(Ipv6Addr::to_string).collect();
    let done = format!("{name}: {interface} in {namespace}, {}, MTU {}", addresses.join(" "), wanted.mtu);
    if !hold {
        return Ok(done + "\n");
    }
    eprintln!("{done}");
    hold_on(name, &tun, &socket, stream)
}

/// Takes the NIC out again.
///
/// # Errors
/// There is no such task, or it has none.
pub fn unplug(args: &UnplugArgs, config: &StaticFile) -> Result<String> {
    let UnplugArgs { name } = args;
    let path = format!("/v1/attachments/{name}/unplug");
    let (status, body) = client::request(&config.control_socket()?, Method::POST, &path)?;
    if status == StatusCode::OK {
        return Ok(format!("{name}: unplugged\n"));
    }
    let refusal = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error);
    bail!("{}", refusal.unwrap_or(status.to_string()))
}

/// What the running daemon knows of the task called `name`.
fn attachment(name: &str, control: &Path) -> Result<Attachment> {
    let (status, body) = client::request(control, Method::GET, "/v1/attachments")?;
    ensure!(status == StatusCode::OK, "the daemon answers {status}");
    let attachments: Vec<Attachment> = serde_json::from_slice(&body)?;
    let found = attachments.into_iter().find(|attachment| attachment.name == name);
    let found = found.with_context(|| format!("the daemon has no attachment \"{name}\""))?;
    ensure!(
        found.kind == "tun",
        "{name} is the NIC of a virtual machine, which connects to {}",
        found.socket.display()
    );
    Ok(found)
}

/// Passes `tun` to the daemon; the connection, once it has taken it.
fn pass(name: &str, tun: &Tun, socket: &Path, hold: bool) -> Result<BufReader<UnixStream>> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("no daemon at {}: is `vhost-ila run` running?", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    message::ask(&stream, &Request { plug: name.to_owned(), hold }, tun.as_fd())?;
    let mut stream = BufReader::new(stream);
    match message::answered(&mut stream).context("the daemon does not answer")? {
        Answer::Plugged => Ok(stream),
        Answer::Refused(why) | Answer::Ended(why) => bail!("the daemon refuses: {why}"),
    }
}

/// Stays until the daemon says that it is over, or the interface is gone; a daemon that ends without a word is waited for.
fn hold_on(name: &str, tun: &Tun, socket: &Path, stream: BufReader<UnixStream>) -> Result<String> {
    let mut stream = Some(stream);
    loop {
        let Some(held) = &mut stream else {
            std::thread::sleep(RETRY);
            tun.interface().context("the interface is gone")?;
            // Not there yet, or not ready: what is waited for. One that refuses will do so again.
            if UnixStream::connect(socket).is_ok() {
                stream = Some(pass(name, tun, socket, true)?);
                eprintln!("{name}: passed to a new daemon");
            }
            continue;
        };
        if held.buffer().is_empty() {
            let mut waiting =
                [PollFd::new(held.get_ref(), PollFlags::IN), PollFd::new(tun, PollFlags::empty())];
            // An interrupted wait is a look like any other.
            let _ = poll(&mut waiting, None);
            let [said, _] = &waiting;
            let said = !said.revents().is_empty();
            tun.interface().context("the interface is gone, with its namespace or by itself")?;
            if !said {
                continue;
            }
        }
        match message::answered(held) {
            Ok(Answer::Ended(why)) => return Ok(format!("{name}: {why}\n")),
            Ok(Answer::Plugged) => {}
            Ok(Answer::Refused(why)) => bail!("the daemon refuses: {why}"),
            Err(Garbled::Ended) => stream = None,
            Err(Garbled::Io(e)) if e.kind() == std::io::ErrorKind::ConnectionReset => stream = None,
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_an_ipv6_prefix() {
        assert_eq!(prefix("::/0"), Ok((Ipv6Addr::UNSPECIFIED, 0)));
        assert_eq!(prefix("2001:db8:51::/64"), Ok(("2001:db8:51::".parse().unwrap(), 64)));
        for wrong in ["2001:db8::", "10.0.0.0/8", "::/129", "::/-1", "default"] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }
}
