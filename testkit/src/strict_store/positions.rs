//! Positions as a real store has them: offsets of bytes, with gaps.

/// Bytes that an event takes in the log that is pretended, at least.
const STRIDE: u64 = 512;
/// Events differ in length by less than this.
const MAX_SKEW: u64 = 311;
/// Positions from here on are no event's, but marks such as "the end".
const FIRST_MARK: u64 = i64::MAX as u64;

/// Returns the offset under which clients know the event at `position` of the node.
pub(super) fn to_offset(position: u64) -> u64 {
    if position == 0 || position >= FIRST_MARK {
        return position;
    }
    position * STRIDE + position.wrapping_mul(0x9e37_79b9) % MAX_SKEW
}

/// Returns the node's position of the event at `offset`; `None` if no event begins there. A client
/// that computes with positions, e.g. adds one, ends up there.
pub(super) fn from_offset(offset: u64) -> Option<u64> {
    if offset == 0 || offset >= FIRST_MARK {
        return Some(offset);
    }
    let position = offset / STRIDE;
    (to_offset(position) == offset).then_some(position)
}

/// Returns a position of a group's information, such as `C:7/P:7`, with offsets.
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
    fn offsets_are_in_order_with_gaps_and_lead_back() {
        for position in 1..10_000 {
            assert!(to_offset(position + 1) > to_offset(position) + 1, "{position}");
            assert_eq!(from_offset(to_offset(position)), Some(position));
            assert_eq!(from_offset(to_offset(position) + 1), None, "{position}");
        }
    }

    #[test]
    fn marks_stay_as_they_are() {
        for mark in [0, FIRST_MARK, u64::MAX] {
            assert_eq!((to_offset(mark), from_offset(mark)), (mark, Some(mark)));
        }
        assert_eq!(to_offset_text("C:2/P:2"), format!("C:{0}/P:{0}", to_offset(2)));
        assert_eq!(to_offset_text("-1"), "-1");
    }
}
