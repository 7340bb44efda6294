//! A Bloom filter: tells for most missing keys, without reading, that the table does not have them.

use sha2::{Digest, Sha256};

/// Bits per key. With [`PROBES`] this gives about 1 % false positives.
const BITS_PER_KEY: u64 = 10;

/// Number of bits that each key sets.
const PROBES: u64 = 7;

/// Hash of a filter key. It is part of the file format and must never change.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct FilterHash {
    start: u64,
    step: u64,
}

impl FilterHash {
    pub(in crate::log) fn from_key(key: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self { start: number(0), step: number(8) }
    }

    /// Returns the hash of a second filter key, derived from this one.
    pub(in crate::log) fn secondary(self) -> Self {
        Self { start: !self.start, step: self.step }
    }
}

/// The bit array.
#[derive(Debug)]
pub(super) struct BloomFilter {
    bytes: Vec<u8>,
}

impl BloomFilter {
    /// Returns an empty filter for `n_keys` keys.
    pub(super) fn for_keys(n_keys: u64) -> Self {
        let n_bytes = n_keys.saturating_mul(BITS_PER_KEY).div_ceil(8).max(8);
        Self { bytes: vec![0; usize::try_from(n_bytes).unwrap_or(usize::MAX)] }
    }

    /// Returns the filter with these bytes; `None` if they are empty.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self { bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn insert(&mut self, hash: FilterHash) {
        for (byte, mask) in self.probe_bits(hash) {
            self.bytes[byte] |= mask;
        }
    }

    pub(super) fn may_contain(&self, hash: FilterHash) -> bool {
        self.probe_bits(hash).all(|(byte, mask)| self.bytes[byte] & mask != 0)
    }

    /// Returns the bits of a key as byte index and mask. The filter has at least one byte.
    fn probe_bits(&self, hash: FilterHash) -> impl Iterator<Item = (usize, u8)> + use<> {
        let n_bits = self.bytes.len() as u64 * 8;
        // Double hashing: two numbers of one digest give the bits of all probes.
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
    fn inserted_keys_are_found_with_few_false_positives() {
        let hash = |number: u64| FilterHash::from_key(&number.to_le_bytes());
        let mut filter = BloomFilter::for_keys(1_000);
        (0..1_000).for_each(|number| filter.insert(hash(number)));
        let filter = BloomFilter::from_bytes(filter.bytes().to_vec()).unwrap();
        assert!((0..1_000).all(|number| filter.may_contain(hash(number))));
        let wrong = (1_000..11_000).filter(|number| filter.may_contain(hash(*number))).count();
        assert!(wrong < 300, "{wrong} of 10000");
    }

    /// Filters of existing stores must find the same bits in every later version.
    #[test]
    fn hash_of_a_key_never_changes() {
        let mut filter = BloomFilter::for_keys(1);
        filter.insert(FilterHash::from_key(b"order-1"));
        assert_eq!(filter.bytes(), GOLDEN);
    }

    #[test]
    fn secondary_hash_differs_from_the_first() {
        let hash = FilterHash::from_key(b"order-1");
        let mut filter = BloomFilter::for_keys(100);
        filter.insert(hash);
        assert!(!filter.may_contain(hash.secondary()));
        filter.insert(hash.secondary());
        assert!(filter.may_contain(hash.secondary()));
    }

    const GOLDEN: [u8; 8] = [136, 8, 0, 136, 0, 128, 8, 0];
}
