//! A Bloom filter: says of most keys that are not in a table that they are not.

use sha2::{Digest, Sha256};

/// Bits for each key. With [`PROBES`], one look-up in a hundred of a missing key is not told.
const BITS_PER_KEY: u64 = 10;

/// Bits that each key sets.
const PROBES: u64 = 7;

/// The hash of a filter key. It is part of the file format, so it must stay the same for ever.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct FilterHash {
    start: u64,
    step: u64,
}

impl FilterHash {
    pub(in crate::log) fn of(key: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self { start: number(0), step: number(8) }
    }

    /// Returns the hash of a second filter key, which is made of the first one.
    pub(in crate::log) fn second(self) -> Self {
        Self { start: !self.start, step: self.step }
    }
}

/// The bits.
#[derive(Debug)]
pub(super) struct BloomFilter {
    bytes: Vec<u8>,
}

impl BloomFilter {
    /// Returns an empty filter with room for so many keys.
    pub(super) fn for_keys(n_keys: u64) -> Self {
        let n_bytes = n_keys.saturating_mul(BITS_PER_KEY).div_ceil(8).max(8);
        Self { bytes: vec![0; usize::try_from(n_bytes).unwrap_or(usize::MAX)] }
    }

    /// Returns the filter of these bytes; `None` if there is none.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self { bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn insert(&mut self, hash: FilterHash) {
        for (byte, mask) in self.probes(hash) {
            self.bytes[byte] |= mask;
        }
    }

    pub(super) fn may_contain(&self, hash: FilterHash) -> bool {
        self.probes(hash).all(|(byte, mask)| self.bytes[byte] & mask != 0)
    }

    /// The bits of a key: byte and mask. There is at least one byte.
    fn probes(&self, hash: FilterHash) -> impl Iterator<Item = (usize, u8)> + use<> {
        let n_bits = self.bytes.len() as u64 * 8;
        (0..PROBES).map(move |probe| {
            let bit = hash.start.wrapping_add(probe.wrapping_mul(hash.step)) % n_bits;
            (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_inserted_is_found_and_little_else() {
        let hash = |number: u64| FilterHash::of(&number.to_le_bytes());
        let mut filter = BloomFilter::for_keys(1_000);
        (0..1_000).for_each(|number| filter.insert(hash(number)));
        let filter = BloomFilter::from_bytes(filter.bytes().to_vec()).unwrap();
        assert!((0..1_000).all(|number| filter.may_contain(hash(number))));
        let wrong = (1_000..11_000).filter(|number| filter.may_contain(hash(*number))).count();
        assert!(wrong < 300, "{wrong} of 10000");
    }

    /// A filter of a store that exists must find the same bits in every later version.
    #[test]
    fn hash_of_a_key_never_changes() {
        let mut filter = BloomFilter::for_keys(1);
        filter.insert(FilterHash::of(b"order-1"));
        assert_eq!(filter.bytes(), GOLDEN);
    }

    #[test]
    fn second_key_is_another_one() {
        let hash = FilterHash::of(b"order-1");
        let mut filter = BloomFilter::for_keys(100);
        filter.insert(hash);
        assert!(!filter.may_contain(hash.second()));
        filter.insert(hash.second());
        assert!(filter.may_contain(hash.second()));
    }

    const GOLDEN: [u8; 8] = [136, 8, 0, 136, 0, 128, 8, 0];
}
