//! Whatever one tenant says to the virtual gateway, and whatever resolvers say to its questions: what comes back is for it, right, and no more than
//! its buckets have; another tenant is answered as ever.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| vhost_ila_fuzz::gateway::run(data));
