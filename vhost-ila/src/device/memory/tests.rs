use super::*;
use crate::device::guest::Ram;

const SPEC: RegionSpec = RegionSpec { gpa: 0, uva: 0, len: 4096, offset: 0 };

#[test]
fn memory_whose_pages_somebody_else_brings_is_refused() {
    // What a user's own file system (FUSE) serves comes when its daemon pleases, and the worker would wait for it, as it would
    // for a disk. procfs stands for all that is not memory.
    let file = File::open("/proc/version").unwrap();
    let refused = GuestMemory::new().with(SPEC, &file).unwrap_err();
    assert!(matches!(refused, MemoryError::NotMemory), "{refused}");
    let ram = Ram::new(&[(0, 4096)]);
    assert!(GuestMemory::new().with(SPEC, &ram.file).is_ok());
}
