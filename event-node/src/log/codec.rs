//! Numbers and texts in the bytes of the index's files.

/// Bits that one byte of a number of variable length carries.
const VARINT_BITS: u32 = 7;

/// Adds a number in one to ten bytes, the lower bits first. All bytes but the last have their highest bit set.
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

/// Adds a length and so many bytes.
pub(super) fn put_bytes(bytes: &mut Vec<u8>, added: &[u8]) {
    put_varint(bytes, added.len() as u64);
    bytes.extend(added);
}

/// Bytes that are left to decode. Every method returns `None` if they do not hold what it decodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        let mut shift = 0;
        loop {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            // Bits beyond the 64th would be lost.
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

    pub(super) fn length(&mut self) -> Option<usize> {
        self.varint().and_then(|length| usize::try_from(length).ok())
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_decoded_as_they_were_encoded(number: u64, shift in 0_u32..64) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let mut decoder = Decoder(&bytes);
            prop_assert_eq!(decoder.varint(), Some(number));
            prop_assert!(decoder.is_empty());
            prop_assert_eq!(Decoder(&bytes[..bytes.len() - 1]).varint(), None);
        }
    }

    #[test]
    fn numbers_of_more_than_64_bits_are_refused() {
        assert_eq!(Decoder(&[0xff; 11]).varint(), None);
        let mut largest = vec![0xff; 9];
        largest.push(1);
        assert_eq!(Decoder(&largest).varint(), Some(u64::MAX));
        largest[9] = 2;
        assert_eq!(Decoder(&largest).varint(), None);
    }
}
