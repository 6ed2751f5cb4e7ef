//! A world in memory: several NVEs, guests (smoltcp stacks) and a fabric in one process and in virtual time.
//! (In this session member `world` writes this module and the scenario tests in `nve-core/tests/`; member `gate` keeps to `gateway/`.)
