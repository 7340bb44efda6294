//! Comparison of this machine's clock with those of other machines.

use jiff::{SignedDuration, Timestamp};
use projectors::ClockReading;

use super::finding::Finding;

/// A larger difference is a warning: waits, lags and ages in the output are wrong by it.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(2);
/// A larger difference fails: certificates and time-outs are judged by a wrong time.
const BAD_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Judges the clock of another machine. Its time may be cut to multiples of `resolution`.
pub(super) fn judge_clock(
    check: &'static str,
    reading: ClockReading,
    resolution: SignedDuration,
) -> Finding {
    let skew = find_skew(reading, resolution);
    let direction = if skew.is_negative() { "behind" } else { "ahead of" };
    let seconds = skew.abs().as_secs_f64();
    let detail = format!("{seconds:.1} s {direction} this machine's clock");
    let advice = "synchronize the clocks of both machines, e.g. with chrony";
    if skew.abs() > BAD_SKEW {
        Finding::fail(check, detail, advice)
    } else if skew.abs() > MAX_SKEW {
        Finding::warn(check, detail, advice)
    } else {
        Finding::ok(check, "agrees with this machine's clock")
    }
}

/// Returns how far the other clock is ahead of this one, as far as the reading proves it: nothing if
/// the other time may lie between request and response.
fn find_skew(reading: ClockReading, resolution: SignedDuration) -> SignedDuration {
    let ClockReading { asked_at, time, answered_at } = reading;
    let latest = saturating_add(time, resolution);
    if latest < asked_at {
        latest.duration_since(asked_at)
    } else if time > answered_at {
        time.duration_since(answered_at)
    } else {
        SignedDuration::ZERO
    }
}

fn saturating_add(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn only_a_proven_difference_counts() {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap();
        let judge = |time, resolution| {
            let reading =
                ClockReading { asked_at: at(500_000), time: at(time), answered_at: at(501_000) };
            judge_clock("clock", reading, SignedDuration::from_millis(resolution))
        };
        assert_eq!(judge(500_500, 0).status, Status::Ok);
        assert_eq!(judge(498_000, 0).status, Status::Ok);
        assert_eq!(judge(497_999, 0).status, Status::Warn);
        assert_eq!(judge(497_999, 1_000).status, Status::Ok, "it may be 498,999");
        let ahead = judge(504_500, 0);
        assert_eq!(ahead.status, Status::Warn);
        assert_eq!(ahead.detail, "3.5 s ahead of this machine's clock");
        let behind = judge(400_000, 0);
        assert_eq!(behind.status, Status::Fail);
        assert_eq!(behind.detail, "100.0 s behind this machine's clock");
    }
}
