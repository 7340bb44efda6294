//! Charts of the last hour or day.

use std::collections::BTreeMap;

use api_types::{MinuteStatistics, Statistics};
use jiff::Timestamp;
use maud::{Markup, html};

use super::{MINUTE, Overview, Window};
use crate::chart::{Chart, Series};
use crate::components::{empty, format_share};

/// Sums of the minutes of one slot.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    received: u64,
    fulfilled: u64,
    failed: u64,
    /// Orders that the gateway fulfilled or refused.
    answered: f64,
    /// Sum of the minutes' mean times, each times `n_ended`.
    completion_seconds: f64,
    /// Orders that were fulfilled or failed in minutes with a mean time.
    n_ended: f64,
    max_completion_seconds: Option<f64>,
}

impl Slot {
    /// Adds a minute. The API does not return the number of orders behind a minute's rate and mean time:
    ///
    /// - The gateway answered `fulfilled / success_rate` orders. At a rate of 0, all failed orders count as
    ///   refused by the gateway, and the rate of the slot may be too low.
    /// - The mean time is weighted with all orders that ended. The mean itself leaves out failed validations
    ///   and later attempts, so the mean of several minutes is approximate.
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^52")]
    fn add(&mut self, minute: &MinuteStatistics) {
        self.received += minute.received;
        self.fulfilled += minute.fulfilled;
        self.failed += minute.failed;
        if let Some(rate) = minute.success_rate {
            self.answered +=
                if rate > 0.0 { minute.fulfilled as f64 / rate } else { minute.failed as f64 };
        }
        if let Some(mean) = minute.mean_completion_seconds {
            let n_ended = (minute.fulfilled + minute.failed) as f64;
            self.completion_seconds += mean * n_ended;
            self.n_ended += n_ended;
        }
        let longest = [self.max_completion_seconds, minute.max_completion_seconds];
        self.max_completion_seconds = longest.into_iter().flatten().reduce(f64::max);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^52")]
    fn success_rate(&self) -> Option<f64> {
        share(self.fulfilled as f64, self.answered)
    }

    fn mean_completion_seconds(&self) -> Option<f64> {
        share(self.completion_seconds, self.n_ended)
    }
}

pub(super) fn show(overview: &Overview) -> Markup {
    let links = html! {
        p.choice role="group" aria-label="Length of the charts" {
            @for (window, name, address) in [
                (Window::Hour, "Last hour", "/console"),
                (Window::Day, "Last day", "/console?window=day"),
            ] {
                a href=(address) aria-current=[(window == overview.window).then_some("true")] { (name) }
            }
        }
    };
    let minutes = overview
        .statistics
        .as_ref()
        .ok()
        .and_then(|statistics: &Statistics| statistics.per_minute.as_deref());
    html! {
        (links)
        @if let Some(minutes) = minutes {
            (charts(minutes, overview.window, overview.now))
        } @else {
            (empty("No figures: the read model does not answer."))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^52")]
fn charts(minutes: &[MinuteStatistics], window: Window, now: Timestamp) -> Markup {
    // Only the mean of a single minute is exact; see `Slot::add`.
    let (step, mean) = match window {
        Window::Hour => (1, "mean"),
        Window::Day => (15, "mean (approximate)"),
    };
    let slots = sum_slots(minutes, window, step, now);
    let times: Vec<_> = slots.keys().copied().collect();
    let values = |value: fn(&Slot) -> Option<f64>| slots.values().map(value).collect::<Vec<_>>();
    let per_minute = |count: u64, step: i64| Some(count as f64 / step as f64);
    let rates = |count: fn(&Slot) -> u64| {
        slots.values().map(|slot| per_minute(count(slot), step)).collect::<Vec<_>>()
    };
    let throughput = Chart {
        title: "Orders per minute",
        slots: &times,
        series: vec![
            Series { name: "received", tone: "busy", values: rates(|slot| slot.received) },
            Series { name: "fulfilled", tone: "good", values: rates(|slot| slot.fulfilled) },
            Series { name: "failed", tone: "bad", values: rates(|slot| slot.failed) },
        ],
        format: format_number,
        max: None,
    };
    let success = Chart {
        title: "Success rate",
        slots: &times,
        series: vec![Series {
            name: "success rate",
            tone: "good",
            values: values(Slot::success_rate),
        }],
        format: format_share,
        max: Some(1.0),
    };
    let completion = Chart {
        title: "Time from receipt to outcome",
        slots: &times,
        series: vec![
            Series { name: mean, tone: "busy", values: values(Slot::mean_completion_seconds) },
            Series {
                name: "longest",
                tone: "warning",
                values: values(|slot| slot.max_completion_seconds),
            },
        ],
        format: format_duration,
        max: None,
    };
    html! {
        div.charts { @for chart in [throughput, success, completion] { (chart.render()) } }
    }
}

/// Returns the full slots of the window, those without orders too, oldest first. The slot that has begun
/// is left out: its counts are too low, and open pages would receive the charts with every order.
fn sum_slots(
    minutes: &[MinuteStatistics],
    window: Window,
    step: i64,
    now: Timestamp,
) -> BTreeMap<Timestamp, Slot> {
    let length = step * MINUTE;
    let start_of = |at: Timestamp| at.as_second().div_euclid(length) * length;
    let begun = start_of(now);
    let n_slots = i64::from(window.minutes()) / step;
    let mut slots: BTreeMap<Timestamp, Slot> = (1..n_slots)
        .filter_map(|age| Timestamp::from_second(begun - age * length).ok())
        .map(|start| (start, Slot::default()))
        .collect();
    for minute in minutes {
        let start = Timestamp::from_second(start_of(minute.minute)).ok();
        if let Some(slot) = start.and_then(|start| slots.get_mut(&start)) {
            slot.add(minute);
        }
    }
    slots
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn format_number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn format_duration(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1_000.0),
        1.0..120.0 => format!("{seconds:.1} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn minute(text: &str, received: u64) -> MinuteStatistics {
        MinuteStatistics {
            minute: at(text),
            events: received,
            received,
            fulfilled: 0,
            failed: 0,
            success_rate: None,
            mean_completion_seconds: None,
            max_completion_seconds: None,
        }
    }

    /// Returns the sums of minutes: fulfilled, failed, success rate, mean completion time.
    fn slot_of(minutes: &[(u64, u64, Option<f64>, Option<f64>)]) -> Slot {
        let mut slot = Slot::default();
        for (fulfilled, failed, success_rate, mean_completion_seconds) in minutes.iter().copied() {
            let empty = minute("2026-01-02T12:00:00Z", 0);
            slot.add(&MinuteStatistics {
                fulfilled,
                failed,
                success_rate,
                mean_completion_seconds,
                ..empty
            });
        }
        slot
    }

    #[test]
    fn success_rate_of_a_slot_counts_the_orders_that_the_rates_cover() {
        for (minutes, rate) in [
            // 1 of 2 orders and 9 of 9; the other 97 failures are not the gateway's.
            (vec![(1, 98, Some(0.5), None), (9, 0, Some(1.0), None)], Some(10.0 / 11.0)),
            (vec![(0, 2, Some(0.0), None), (8, 0, Some(1.0), None)], Some(0.8)),
            // Failed validations only.
            (vec![(0, 5, None, None)], None),
            (vec![(0, 5, None, None), (3, 1, Some(0.75), None)], Some(0.75)),
        ] {
            let found = slot_of(&minutes).success_rate();
            let difference = found.unwrap_or(-1.0) - rate.unwrap_or(-1.0);
            assert!(difference.abs() < 1e-9, "{minutes:?}: {found:?}");
        }
    }

    #[test]
    fn mean_of_a_slot_is_weighted_and_that_of_a_minute_exact() {
        let mean = |minutes| slot_of(minutes).mean_completion_seconds().unwrap();
        assert!((mean(&[(1, 4, None, Some(0.3))]) - 0.3).abs() < 1e-9);
        let found = mean(&[(2, 1, None, Some(1.0)), (1, 0, None, Some(5.0)), (0, 9, None, None)]);
        assert!((found - 2.0).abs() < 1e-9, "{found}");
    }

    #[test]
    fn slots_are_full_and_cover_the_minutes_that_the_api_returns() {
        let now = at("2026-01-02T12:07:30Z");
        for (window, step, n_slots, newest) in [
            (Window::Hour, 1, 59, "2026-01-02T12:06:00Z"),
            (Window::Day, 15, 95, "2026-01-02T11:45:00Z"),
        ] {
            let minutes = [minute("2026-01-02T12:07:00Z", 5), minute("2026-01-02T11:59:00Z", 3)];
            let slots = sum_slots(&minutes, window, step, now);
            assert_eq!(slots.len(), n_slots);
            assert_eq!(slots.last_key_value().map(|(start, _)| *start), Some(at(newest)));
            let oldest = slots.first_key_value().map(|(start, _)| start.as_second()).unwrap();
            assert!(oldest > now.as_second() - i64::from(window.minutes()) * MINUTE, "{oldest}");
            assert_eq!(slots.values().map(|slot| slot.received).sum::<u64>(), 3);
        }
    }
}
