//! A world in memory: several NVEs, guests (smoltcp stacks) and a fabric in one process and in virtual time.
