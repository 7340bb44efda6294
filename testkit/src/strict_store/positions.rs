//! Positions of a real store: byte offsets with gaps.

/// Minimum distance between the offsets of two events, in bytes.
const STRIDE: u64 = 512;
/// Maximum variation of that distance, in bytes.
const MAX_SKEW: u64 = 311;
/// First position with a special meaning, such as "the end".
const FIRST_MARK: u64 = i64::MAX as u64;

/// Returns the offset that clients see for an event at `position` of the node.
pub(super) fn to_offset(position: u64) -> u64 {
    if position == 0 || position >= FIRST_MARK {
        return position;
    }
    position * STRIDE + position.wrapping_mul(0x9e37_79b9) % MAX_SKEW
}

/// Returns the node's position of the event at `offset`, or `None` if no event begins there, e.g. because
/// a client has added one to a position.
pub(super) fn from_offset(offset: u64) -> Option<u64> {
    if offset == 0 || offset >= FIRST_MARK {
        return Some(offset);
    }
    let position = offset / STRIDE;
    (to_offset(position) == offset).then_some(position)
}

/// Converts a position in the text form of group information, e.g. `C:7/P:7`.
pub(super) fn to_offset_text(text: &str) -> String {
    let offset = |text: &str| text.parse().ok().map(to_offset);
    let both = text.strip_prefix("C:").and_then(|text| text.split_once("/P:"));
    match both.map(|(commit, prepare)| (offset(commit), offset(prepare))) {
        Some((Some(commit), Some(prepare))) => format!("C:{commit}/P:{prepare}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_increase_with_gaps_and_convert_back() {
        for position in 1..10_000 {
            assert!(to_offset(position + 1) > to_offset(position) + 1, "{position}");
            assert_eq!(from_offset(to_offset(position)), Some(position));
            assert_eq!(from_offset(to_offset(position) + 1), None, "{position}");
        }
    }

    #[test]
    fn special_positions_are_not_converted() {
        for mark in [0, FIRST_MARK, u64::MAX] {
            assert_eq!((to_offset(mark), from_offset(mark)), (mark, Some(mark)));
        }
        assert_eq!(to_offset_text("C:2/P:2"), format!("C:{0}/P:{0}", to_offset(2)));
        assert_eq!(to_offset_text("-1"), "-1");
    }
}
