//! Two honest tenants who talk all the time, beside one who is not honest: nothing of theirs may be lost, late or altered.
//!
//! ```text
//!   one ──question──> two ──answer──> one ──next question──> ...     in a thread; a question each round also goes to the third
//! ```

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::checksum::sum;
use super::{Options, Peer, connect};
use crate::process::wait_for;
use crate::site::{Site, Vm};

/// What an answer may take on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(5);

/// The gateway's address on every link.
const GATEWAY: [u8; 6] = [0x02, 0x49, 0x4c, 0x41, 0, 1];

/// The conversation, until it is ended.
pub struct Neighbours {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Duration>>>,
}

impl Neighbours {
    /// `one` and `two` begin to talk; what `one` sends to `third` besides is not answered.
    ///
    /// # Errors
    ///
    /// Fails when a peer cannot be attached, or the first answers do not come.
    pub fn begin(site: &Site, one: &Vm, two: &Vm, third: &Vm) -> Result<Neighbours> {
        let join = |vm: &Vm, options| -> Result<Peer> {
            let mut peer = Peer::new(options)?;
            peer.hide(SECRET)?;
            peer.attach(connect(&site.socket(vm))?)?;
            Ok(peer)
        };
        let mut peers = [join(one, Options::default())?, join(two, Options::offloads())?];
        let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (done, stopped) = (rounds.clone(), stop.clone());
        let (one, two, third) = (*one, *two, *third);
        let thread = thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let round = done.load(Ordering::Relaxed);
                let start = Instant::now();
                let [asks, answers] = &mut peers;
                asks.send(&datagram(&one, &third, &round.to_be_bytes())?)?;
                say(asks, answers, &one, &two, round).with_context(|| format!("question {round}"))?;
                say(answers, asks, &two, &one, round).with_context(|| format!("answer {round}"))?;
                slowest = slowest.max(start.elapsed());
                done.store(round + 1, Ordering::Release);
                // The machine has other things to do.
                thread::sleep(Duration::from_millis(1));
            }
            Ok(slowest)
        });
        let neighbours = Neighbours { rounds, stop, thread: Some(thread) };
        neighbours.must_talk()?;
        Ok(neighbours)
    }

    /// Twenty more rounds, or an error.
    ///
    /// # Errors
    ///
    /// Fails when they have fallen silent.
    pub fn must_talk(&self) -> Result<()> {
        let goal = self.rounds.load(Ordering::Acquire) + 20;
        wait_for("twenty rounds of the neighbours", LIMIT, || {
            ensure!(
                !self.thread.as_ref().is_none_or(JoinHandle::is_finished),
                "the neighbours stopped talking"
            );
            Ok((self.rounds.load(Ordering::Acquire) >= goal).then_some(()))
        })
    }

    /// Ends the conversation; how many rounds there were, and how long the slowest took.
    ///
    /// # Errors
    ///
    /// Fails when a frame was lost, altered or late, ever.
    pub fn end(mut self) -> Result<(u64, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("ended already")?;
        let slowest = thread.join().map_err(|_| anyhow::anyhow!("the neighbours' thread panicked"))??;
        Ok((self.rounds.load(Ordering::Acquire), slowest))
    }
}

/// One datagram from `sender` to `receiver`, which must come as it was sent. The gateway's own frames are passed over.
fn say(sender: &mut Peer, receiver: &mut Peer, from: &Vm, to: &Vm, round: u64) -> Result<()> {
    let payload = round.to_be_bytes();
    let sent = datagram(from, to, &payload)?;
    sender.send(&sent)?;
    loop {
        let frame = receiver.receive(LIMIT)?.context("lost")?.bytes;
        if !is_between(&frame, from, to) {
            ensure!(frame.get(6..12) == Some(&GATEWAY), "from whom is {frame:02x?}");
            ensure!(
                !frame.windows(6).any(|bytes| bytes == EVIL),
                "what a hostile neighbour wrote was delivered"
            );
            continue;
        }
        ensure!(frame.len() == sent.len() && frame.ends_with(&payload), "altered: {frame:02x?}");
        ensure!(frame.get(..6) == Some(&mac(to)?), "to another: {frame:02x?}");
        return Ok(());
    }
}

/// What lies around everything that the honest ones send, and must never leave their memory.
pub const SECRET: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// What hostile neighbours put into frames that must never be delivered.
pub const EVIL: &[u8; 6] = b"666666";

/// A UDP datagram over IPv4 without checksum, from `from`'s card to the gateway's.
///
/// # Errors
///
/// As [`packet`].
pub fn datagram(from: &Vm, to: &Vm, payload: &[u8]) -> Result<Vec<u8>> {
    let udp = [9u16, 9, u16::try_from(8 + payload.len())?, 0].into_iter().flat_map(u16::to_be_bytes);
    let udp: Vec<u8> = udp.chain(payload.iter().copied()).collect();
    packet(from, to, 17, &udp)
}

/// An IPv4 packet of `protocol` from `from`'s card to the gateway's.
///
/// # Errors
///
/// Fails when a machine's addresses are not of the form they have.
pub fn packet(from: &Vm, to: &Vm, protocol: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(20 + payload.len())?;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    for address in [from.ipv4, to.ipv4] {
        ip.extend(address.parse::<Ipv4Addr>()?.octets());
    }
    let checksum = !sum(&ip, 0);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let ethernet = GATEWAY.into_iter().chain(mac(from)?).chain([8, 0]);
    Ok(ethernet.chain(ip).chain(payload.iter().copied()).collect())
}

/// An ARP request for the gateway of `vm`'s network, which it always answers.
///
/// # Errors
///
/// As [`datagram`].
pub fn arp_request(vm: &Vm, target: Ipv4Addr) -> Result<Vec<u8>> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(vm)?);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac(vm)?);
    frame.extend(vm.ipv4.parse::<Ipv4Addr>()?.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    Ok(frame)
}

/// Whether `frame` is IPv4 from `from` to `to`.
pub fn is_between(frame: &[u8], from: &Vm, to: &Vm) -> bool {
    let address = |text: &str| text.parse::<Ipv4Addr>().map(|address| address.octets()).ok();
    frame.get(12..14) == Some(&[8, 0])
        && frame.get(26..30).map(<[u8]>::to_vec) == address(from.ipv4).map(Vec::from)
        && frame.get(30..34).map(<[u8]>::to_vec) == address(to.ipv4).map(Vec::from)
}

fn mac(vm: &Vm) -> Result<[u8; 6]> {
    let parts: Vec<u8> =
        vm.mac.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
    parts.try_into().map_err(|_| anyhow::anyhow!("not a MAC address: {}", vm.mac))
}
