//! Decoding of the bytes in log and index files, and encoding of those in index files.

/// Number of value bits in one byte of a varint.
const VARINT_BITS: u32 = 7;

/// Appends a number as a LEB128 varint of 1 to 10 bytes.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= VARINT_BITS;
        if number == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Appends bytes, prefixed with their length as a varint.
pub(super) fn put_bytes(bytes: &mut Vec<u8>, added: &[u8]) {
    put_varint(bytes, added.len() as u64);
    bytes.extend(added);
}

/// Remaining bytes to decode. Every method returns `None` if the bytes do not hold the expected
/// value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn read_raw(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn read_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// Reads a little-endian number.
    pub(super) fn read_u32(&mut self) -> Option<u32> {
        self.read_array().map(u32::from_le_bytes)
    }

    /// Reads a little-endian number.
    pub(super) fn read_u64(&mut self) -> Option<u64> {
        self.read_array().map(u64::from_le_bytes)
    }

    pub(super) fn read_varint(&mut self) -> Option<u64> {
        let mut number = 0;
        let mut shift = 0;
        loop {
            let [byte] = self.read_array()?;
            let bits = u64::from(byte & 0x7f);
            // Reject numbers with more than 64 bits instead of dropping the upper ones.
            if shift >= u64::BITS || (bits << shift) >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
            shift += VARINT_BITS;
        }
    }

    pub(super) fn read_length(&mut self) -> Option<usize> {
        self.read_varint().and_then(|length| usize::try_from(length).ok())
    }

    pub(super) fn read_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.read_length()?;
        self.read_raw(length)
    }

    pub(super) fn read_text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.read_bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn encoded_varints_are_decoded_back(number: u64, shift in 0_u32..64) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let mut decoder = Decoder(&bytes);
            prop_assert_eq!(decoder.read_varint(), Some(number));
            prop_assert!(decoder.is_empty());
            prop_assert_eq!(Decoder(&bytes[..bytes.len() - 1]).read_varint(), None);
        }
    }

    #[test]
    fn varints_above_64_bits_are_refused() {
        assert_eq!(Decoder(&[0xff; 11]).read_varint(), None);
        let mut largest = vec![0xff; 9];
        largest.push(1);
        assert_eq!(Decoder(&largest).read_varint(), Some(u64::MAX));
        largest[9] = 2;
        assert_eq!(Decoder(&largest).read_varint(), None);
    }
}
