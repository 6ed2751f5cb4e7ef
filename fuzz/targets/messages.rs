//! A front-end's messages, served by a connection with a worker behind it: nothing ends the worker or is left behind.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use nve_core::addr::ChecksumMode;
use vhost_ila::worker::conversation::Listener;
use vhost_ila_fuzz::GUESTS;

/// How many messages were heard, and by whom.
struct Heard {
    listener: Listener,
    messages: u64,
    said: u64,
}

thread_local! {
    static HEARD: RefCell<Option<Heard>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    HEARD.with_borrow_mut(|heard| {
        let heard = heard.get_or_insert_with(|| {
            let nve = vhost_ila_fuzz::nve(ChecksumMode::Neutral);
            let listener = Listener::new(Arc::clone(&nve), GUESTS[0].name()).expect("a listener");
            Heard { listener, messages: 0, said: 0 }
        });
        heard.messages += heard.listener.hear(bytes);
        // For the scoreboard.
        if heard.messages >= heard.said + 10_000 {
            heard.said = heard.messages;
            eprintln!("counted: {} messages", heard.messages);
        }
    });
});
