//! The hash of keys in memory: fast, without a seed, so that two runs lay a table out alike.
//!
//! It reaches no file. What is written down is bucketed by [`highwater_core::stable_hash`].

/// Odd constants with well-spread bits (fractions of √2, √3, √5).
const MULTIPLIERS: [u64; 3] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
];

/// The hash of a key of one word; `nulls` are its null bits.
#[inline]
pub(crate) fn hash_word(word: u64, nulls: u64) -> u64 {
    let nulls = nulls.wrapping_mul(MULTIPLIERS[2]);
    fold(word ^ MULTIPLIERS[0] ^ nulls, MULTIPLIERS[1])
}

/// The hash of a key of two words.
#[inline]
pub(crate) fn hash_words(first: u64, second: u64, nulls: u64) -> u64 {
    fold(hash_word(first, nulls) ^ second, MULTIPLIERS[2])
}

/// The hash of a key of bytes; `None` is the null key.
#[inline]
pub(crate) fn hash_bytes(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(MULTIPLIERS[0], highwater_core::stable_hash)
}

/// The part of a hash that the index keeps beside a slot.
#[inline]
pub(crate) fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The 128-bit product, its halves mixed.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}
