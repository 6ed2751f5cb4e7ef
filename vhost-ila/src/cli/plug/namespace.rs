//! Another network namespace, entered by a thread of its own that ends there, and what a task's interface is in it.
//!
//! What must stay true: only the thread that enters is ever inside; all its requests go through sockets that it opened there.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns add` keeps names.
const NAMED: &str = "/run/netns";

/// What an interface is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    /// Bytes of the largest IPv6 packet.
    pub(super) mtu: u16,
    /// Each a /128.
    pub(super) addresses: Vec<Ipv6Addr>,
    /// What is reached by it: prefix and length.
    pub(super) routes: Vec<(Ipv6Addr, u8)>,
}

/// A network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    path: PathBuf,
    file: File,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Namespace {
    /// The one at `path`; a name without a slash is one of `ip netns`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let is_name = path.components().count() == 1 && !path.is_absolute() && !path.starts_with(".");
        let path = if is_name { Path::new(NAMED).join(path) } else { path.to_owned() };
        let file =
            File::open(&path).with_context(|| format!("no network namespace at {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Moves the interface called `made` from our namespace into this one, and makes it what is wanted.
    pub(super) fn furnish(&self, made: &str, wanted: &Interface) -> Result<()> {
        netlink(async |handle| {
            let index = index_of(&handle, made).await?;
            let link = LinkUnspec::new_with_index(index).setns_by_fd(self.file.as_raw_fd());
            let link = link.name(wanted.name.clone()).build();
            handle.link().set(link).execute().await.with_context(|| {
                format!("{} cannot be put there; is there such an interface already?", wanted.name)
            })
        })
        .with_context(|| format!("namespace {self}"))?;
        let inside = std::thread::scope(|scope| scope.spawn(|| self.inside(wanted)).join());
        inside
            .map_err(|_| anyhow!("a mistake of ours, please report it"))?
            .with_context(|| format!("namespace {self}"))
    }

    /// What is done by the thread that enters.
    fn inside(&self, wanted: &Interface) -> Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(io::Error::from)
            .context("cannot be entered")?;
        // There is nobody else on its link, and it has no other addresses than those given: the kernel need not make one of its own. Where
        // this cannot be written, it does.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", wanted.name), "1");
        netlink(async |handle| {
            let index = index_of(&handle, &wanted.name).await?;
            let link = LinkUnspec::new_with_index(index).mtu(wanted.mtu.into()).up().build();
            handle.link().set(link).execute().await.context("the interface cannot be brought up")?;
            for address in &wanted.addresses {
                let mut request = handle.address().add(index, (*address).into(), 128);
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                request.execute().await.with_context(|| format!("address {address}"))?;
            }
            for (prefix, length) in &wanted.routes {
                let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(*prefix, *length);
                let route = route.output_interface(index).build();
                let added = handle.route().add(route).execute().await;
                added.with_context(|| format!("route {prefix}/{length}; say --route if it has another"))?;
            }
            Ok(())
        })
    }
}

/// Does `work` by a netlink socket of the present namespace.
fn netlink(work: impl AsyncFnOnce(Handle) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        work(handle).await
    })
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let link = found.try_next().await?.with_context(|| format!("there is no interface {name}"))?;
    Ok(link.header.index)
}
