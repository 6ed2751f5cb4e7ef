//! IPv4 options: all are ignored but an unexpired source route (RFC 7915 4.1).

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// True when `options`, the bytes behind the fixed header, hold a source route that has hops left: its pointer
/// (counted from 1, first legal value 4) does not exceed its length (RFC 791).
///
/// Every step advances by one byte or more, so a hostile length cannot loop; an option that is shorter than its own
/// header or reaches past the end ends the scan.
pub(super) fn has_unexpired_source_route(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match (*kind, rest) {
            (END, _) => return false,
            (NO_OPERATION, rest) => options = rest,
            (LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, [len, pointer, ..]) if *len >= 3 => {
                return pointer <= len;
            }
            (LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, _) => return false,
            (_, [len, ..]) if *len >= 2 => match options.get(usize::from(*len)..) {
                Some(next) => options = next,
                None => return false,
            },
            _ => return false,
        }
    }
    false
}
