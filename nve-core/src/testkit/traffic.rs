//! What guests do: ping, and move bytes over TCP, by their own stacks.

use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};

use super::world::World;

/// How long the last answer to a ping is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the first request is sent.
const ATTEMPTS: usize = 3;
/// Between two echo requests.
const INTERVAL: Duration = Duration::from_millis(10);
/// What a transfer may take, in virtual time.
const TRANSFER_LIMIT: Duration = Duration::from_secs(3600);
/// Bytes of a TCP socket's buffers.
const TCP_BUFFER: usize = 65535;
/// Where a receiving guest listens.
const TCP_PORT: u16 = 5001;

/// A transfer that did not arrive as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferError {
    /// Nothing moved any more; bytes that had arrived.
    Stalled(usize),
    /// Other bytes than were sent, from this one on.
    Differs(usize),
}

/// An echo client.
struct Pinger {
    guest: usize,
    socket: SocketHandle,
    to: IpAddr,
    ident: u16,
    len: usize,
}

fn parse(address: &str) -> IpAddr {
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}

impl World {
    /// Sends `count` echo requests of `len` payload bytes from a guest's stack and counts the answers.
    ///
    /// One request goes ahead, is repeated a few times and not counted: smoltcp forgets an answer for which it must first resolve
    /// the asker, and asks for a neighbour once a second.
    ///
    /// # Panics
    /// If there is no such guest or address.
    pub fn pings(&mut self, from: &str, to: &str, count: u16, len: usize) -> u16 {
        let pinger = self.pinger(from, to, usize::from(count), len);
        for _ in 0..ATTEMPTS {
            self.ask(&pinger, 0);
            if self.run_until(PATIENCE, |world| world.answers(&pinger).0 > 0) {
                break;
            }
        }
        for sequence in 1..=count {
            self.ask(&pinger, sequence);
            self.run_for(INTERVAL);
        }
        let mut answered = 0;
        self.run_until(PATIENCE, |world| {
            answered += world.answers(&pinger).1;
            answered == count
        });
        self.guests[pinger.guest].sockets.remove(pinger.socket);
        answered
    }

    fn pinger(&mut self, from: &str, to: &str, count: usize, len: usize) -> Pinger {
        let (guest, to) = (self.guest_index(from), parse(to));
        let ident = self.dice.roll() as u16;
        let buffer = || {
            // More than the room: a ring that wraps pads.
            let slots = 2 * count + 8;
            icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; slots], vec![0; slots * (len + 8)])
        };
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ident)).expect("a fresh socket binds");
        let socket = self.guests[guest].sockets.add(socket);
        Pinger { guest, socket, to, ident, len }
    }

    fn ask(&mut self, pinger: &Pinger, sequence: u16) {
        let guest = &mut self.guests[pinger.guest];
        let source = guest.stack().0.get_source_address(&pinger.to.into()).map(IpAddr::from);
        let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(pinger.socket);
        send_echo(socket, source, pinger.to, (pinger.ident, sequence), &vec![0x5a; pinger.len]);
    }

    /// Answers that came since: to the request that went ahead, and to the others.
    fn answers(&mut self, pinger: &Pinger) -> (u16, u16) {
        let socket = self.guests[pinger.guest].sockets.get_mut::<icmp::Socket<'_>>(pinger.socket);
        let kind = if pinger.to.is_ipv4() { 0 } else { 129 };
        let (mut ahead, mut counted) = (0, 0);
        while let Ok((bytes, _)) = socket.recv() {
            let is_answer = bytes.first() == Some(&kind);
            let is_first = bytes.get(6..8) == Some(&[0, 0]);
            ahead += u16::from(is_answer && is_first);
            counted += u16::from(is_answer && !is_first);
        }
        (ahead, counted)
    }

    /// Moves `len` bytes made by chance over TCP between two guests' stacks; the bytes are compared. Tells the virtual time it took.
    ///
    /// # Errors
    /// See [`TransferError`].
    ///
    /// # Panics
    /// If there are no such guests or address.
    pub fn transfer(
        &mut self,
        from: &str,
        to: &str,
        address: &str,
        len: usize,
    ) -> Result<Duration, TransferError> {
        self.transfer_while(from, to, address, len, |_, _| {})
    }

    /// The same, while `meanwhile` does something to the world: it is asked after every instant, with the bytes that have arrived.
    ///
    /// # Errors
    /// See [`TransferError`].
    ///
    /// # Panics
    /// If there are no such guests or address.
    pub fn transfer_while(
        &mut self,
        from: &str,
        to: &str,
        address: &str,
        len: usize,
        mut meanwhile: impl FnMut(&mut World, usize),
    ) -> Result<Duration, TransferError> {
        let (client, server, address) = (self.guest_index(from), self.guest_index(to), parse(address));
        let sent = self.dice.bytes(len);
        let listening = self.listen(server);
        let connected = self.connect(client, address);
        let (mut offset, mut received) = (0, Vec::with_capacity(len));
        let began = self.now();
        let complete = self.run_until(TRANSFER_LIMIT, |world| {
            let socket = world.guests[client].sockets.get_mut::<tcp::Socket<'_>>(connected);
            if socket.may_send() {
                offset += socket.send_slice(&sent[offset..]).unwrap_or(0);
                if offset == sent.len() {
                    socket.close();
                }
            }
            let socket = world.guests[server].sockets.get_mut::<tcp::Socket<'_>>(listening);
            while socket.can_recv() {
                let taken = socket.recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
                if taken.is_err() {
                    break;
                }
            }
            meanwhile(world, received.len());
            received.len() >= len
        });
        let took = self.now() - began;
        self.guests[client].sockets.remove(connected);
        self.guests[server].sockets.remove(listening);
        match sent.iter().zip(&received).position(|(a, b)| a != b) {
            Some(at) => Err(TransferError::Differs(at)),
            None if complete && received.len() == len => Ok(took),
            None => Err(TransferError::Stalled(received.len())),
        }
    }

    /// Says `request` over TCP from a guest's stack to `port` of `to`, and hears what is said until the other end closes, or for
    /// `patience`. `None`: refused, or cut off.
    ///
    /// # Panics
    /// If there is no such guest or address.
    pub fn ask_by_tcp(
        &mut self,
        from: &str,
        (to, port): (&str, u16),
        request: &[u8],
        patience: Duration,
    ) -> Option<Vec<u8>> {
        let (client, to) = (self.guest_index(from), parse(to));
        let local = 49152 + (self.dice.roll() % 16384) as u16;
        let (interface, sockets) = self.guests[client].stack();
        let handle = sockets.add(new_tcp());
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(interface.context(), (to, port), local).expect("a fresh socket connects");
        let (mut offset, mut heard) = (0, Vec::new());
        let ended = self.run_until(patience, |world| {
            let socket = world.guests[client].sockets.get_mut::<tcp::Socket<'_>>(handle);
            if offset < request.len() && socket.can_send() {
                offset += socket.send_slice(&request[offset..]).unwrap_or(0);
            }
            while let Ok(some) = socket.recv(|bytes| {
                heard.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            }) && some > 0
            {}
            matches!(socket.state(), tcp::State::CloseWait | tcp::State::Closed)
        });
        let socket = self.guests[client].sockets.get_mut::<tcp::Socket<'_>>(handle);
        let is_closed_well = socket.state() == tcp::State::CloseWait;
        socket.close();
        self.run_for(Duration::from_millis(100));
        self.guests[client].sockets.remove(handle);
        (ended && is_closed_well).then_some(heard)
    }

    fn listen(&mut self, guest: usize) -> SocketHandle {
        let mut socket = new_tcp();
        socket.listen(TCP_PORT).expect("a fresh socket listens");
        self.guests[guest].sockets.add(socket)
    }

    fn connect(&mut self, guest: usize, address: IpAddr) -> SocketHandle {
        let local = 49152 + (self.dice.roll() % 16384) as u16;
        let (interface, sockets) = self.guests[guest].stack();
        let handle = sockets.add(new_tcp());
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(interface.context(), (address, TCP_PORT), local).expect("a fresh socket connects");
        handle
    }
}

fn new_tcp() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
    tcp::Socket::new(buffer(), buffer())
}

fn send_echo(
    socket: &mut icmp::Socket<'_>,
    source: Option<IpAddr>,
    to: IpAddr,
    (ident, seq_no): (u16, u16),
    data: &[u8],
) {
    let caps = ChecksumCapabilities::default();
    match (source, to) {
        (_, IpAddr::V4(_)) => {
            let repr = Icmpv4Repr::EchoRequest { ident, seq_no, data };
            let bytes = socket.send(repr.buffer_len(), to.into()).expect("room for an echo request");
            repr.emit(&mut Icmpv4Packet::new_unchecked(bytes), &caps);
        }
        (Some(IpAddr::V6(source)), IpAddr::V6(v6)) => {
            let repr = Icmpv6Repr::EchoRequest { ident, seq_no, data };
            let bytes = socket.send(repr.buffer_len(), to.into()).expect("room for an echo request");
            repr.emit(&source, &v6, &mut Icmpv6Packet::new_unchecked(bytes), &caps);
        }
        (source, to) => panic!("no echo from {source:?} to {to}"),
    }
}
