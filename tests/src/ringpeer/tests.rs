//! The peer against `virtio-queue`, the reference, as its device: what is sent comes back.

use virtio_queue::{Queue, QueueT};

use super::*;

/// A device that gives each frame back, in buffers as the driver posts them.
struct Mirror {
    memory: Memory,
    rx: Queue,
    tx: Queue,
    calls: [EventFd; 2],
}

impl Mirror {
    fn of(peer: &Peer) -> Mirror {
        let queue = |ring: &Ring| {
            let config = ring.config();
            let guest = |user_address: u64| GuestAddress(user_address - memory::user(GuestAddress(0)));
            let mut queue = Queue::new(config.queue_size).unwrap();
            queue.try_set_desc_table_address(guest(config.desc_table_addr)).unwrap();
            queue.try_set_avail_ring_address(guest(config.avail_ring_addr)).unwrap();
            queue.try_set_used_ring_address(guest(config.used_ring_addr)).unwrap();
            queue.set_event_idx(peer.options.features & bits(&[VIRTIO_RING_F_EVENT_IDX]) != 0);
            queue.set_ready(true);
            assert!(queue.is_valid(&*peer.memory.map));
            queue
        };
        let calls = [&peer.rx, &peer.tx].map(|ring| ring.call.try_clone().unwrap());
        Mirror { memory: peer.memory.clone(), rx: queue(&peer.rx), tx: queue(&peer.tx), calls }
    }

    /// Gives back all that was sent, over as many buffers as it takes.
    fn turn(&mut self) {
        let map = &*self.memory.map;
        while let Some(chain) = self.tx.pop_descriptor_chain(map) {
            let head = chain.head_index();
            let mut bytes = Vec::new();
            for part in chain.readable() {
                let mut piece = vec![0; part.len() as usize];
                map.read_slice(&mut piece, part.addr()).unwrap();
                bytes.extend(piece);
            }
            self.tx.add_used(map, head, 0).unwrap();
            let mut buffers = Vec::new();
            let mut room = 0;
            while room < bytes.len() {
                let chain = self.rx.pop_descriptor_chain(map).unwrap();
                let head = chain.head_index();
                let part = chain.writable().next().unwrap();
                room += part.len() as usize;
                buffers.push((head, part));
            }
            bytes[10..12].copy_from_slice(&u16::try_from(buffers.len()).unwrap().to_le_bytes());
            let mut rest = &bytes[..];
            for (head, part) in buffers {
                let (now, later) = rest.split_at(rest.len().min(part.len() as usize));
                map.write_slice(now, part.addr()).unwrap();
                self.rx.add_used(map, head, u32::try_from(now.len()).unwrap()).unwrap();
                rest = later;
            }
        }
        for (queue, call) in [&mut self.rx, &mut self.tx].into_iter().zip(&self.calls) {
            if queue.needs_notification(map).unwrap() {
                call.write(1).unwrap();
            }
        }
    }
}

fn frame(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + number) as u8).collect()
}

fn all_come_back(options: Options) {
    let mut peer = Peer::new(options).unwrap();
    let mut mirror = Mirror::of(&peer);
    for round in 0..2000 {
        let lengths = [60 + round % 1400, 14, 1500];
        for (number, length) in lengths.into_iter().enumerate() {
            peer.send(&frame(round + number, length)).unwrap();
        }
        mirror.turn();
        peer.flush().unwrap();
        for (number, length) in lengths.into_iter().enumerate() {
            let came = peer.receive(LIMIT).unwrap().unwrap();
            assert_eq!(came.bytes, frame(round + number, length));
        }
        assert_eq!(peer.receive(Duration::ZERO).unwrap(), None);
    }
}

#[test]
fn frames_come_back_past_the_wrap_of_the_ring() {
    all_come_back(Options { ring: 128, ..Options::default() });
}

#[test]
fn frames_in_many_descriptors_come_back() {
    all_come_back(Options { chain: Chain::Pieces(40), ..Options::default() });
}

#[test]
fn frames_come_back_by_indirect_tables_with_event_indices_over_small_buffers() {
    all_come_back(Options { rx_buffer: 300, ..Options::offloads() });
}

#[test]
fn a_super_packet_comes_back_over_mergeable_buffers_with_its_header() {
    let mut peer = Peer::new(Options::offloads()).unwrap();
    let mut mirror = Mirror::of(&peer);
    let header = NetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: 54,
        gso_size: 1400,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    peer.send_with(header, &frame(0, 65_000)).unwrap();
    mirror.turn();
    let came = peer.receive(LIMIT).unwrap().unwrap();
    assert_eq!(came.header, NetHeader { num_buffers: 32, ..header });
    assert_eq!(came.bytes, frame(0, 65_000));
}

#[test]
fn a_device_that_forgets_to_call_is_found_out() {
    let mut peer = Peer::new(Options::default()).unwrap();
    let mut mirror = Mirror::of(&peer);
    mirror.calls = [(); 2].map(|()| EventFd::new(0).unwrap());
    peer.send(&frame(1, 60)).unwrap();
    let device = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        mirror.turn();
    });
    let error = peer.receive(Duration::from_millis(500)).unwrap_err();
    device.join().unwrap();
    assert!(error.to_string().contains("without a call"), "{error}");
}
