//! The hash that may reach a file: fixed for ever, the same on every machine.

use twox_hash::XxHash3_64;

/// The hash of a key's canonical bytes (XXH3, 64 bits, seed 0).
///
/// State is bucketed by it and checkpoints hold what it decided, so it never changes: hash tables in
/// memory may use whatever they like, but what is written down uses this.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // The empty input of XXH3_64bits with seed 0, from the reference implementation.
        assert_eq!(stable_hash(b""), 0x2d06_8005_38d3_94c2);
    }
}
