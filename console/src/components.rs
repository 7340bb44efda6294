//! Parts that several pages share: times, numbers, statuses, tables, panels.

use std::fmt::Display;
use std::time::Duration;

use api_types::{FailureClass, FailureStage, OrderStatus, Unavailable};
use jiff::{Timestamp, Unit};
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::Loaded;

/// Characters that stay readable in an address.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Returns text as a part of a path or a query.
pub(crate) fn encode_component(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// Returns the address of an order's page. A visitor may have typed the id.
pub(crate) fn order_address(id: impl Display) -> String {
    format!("/console/orders/{}", encode_component(&id.to_string()))
}

/// Returns the address of the orders of a customer.
pub(crate) fn customer_address(customer_id: &str) -> String {
    format!("/console/orders?customer={}", encode_component(customer_id))
}

/// Returns the address of a redrive task's page. A visitor may have typed the id.
pub(crate) fn task_address(id: impl Display) -> String {
    format!("/console/dead-letters/tasks/{}", encode_component(&id.to_string()))
}

/// Returns a box with a message. Kinds: `info`, `success`, `warning`, `error`.
#[expect(clippy::needless_pass_by_value, reason = "callers write the content in the call")]
pub(crate) fn callout(kind: &str, content: Markup) -> Markup {
    html! {
        div.callout data-kind=(kind) { (content) }
    }
}

/// Returns a relative time with the absolute time as its title. The script keeps it current.
pub(crate) fn time(at: Timestamp, now: Timestamp) -> Markup {
    html! {
        time datetime=(at) title=(format_absolute(at)) data-relative { (format_age(at, now)) }
    }
}

/// As [`time`], with a dash if there is none.
pub(crate) fn optional_time(at: Option<Timestamp>, now: Timestamp) -> Markup {
    html! {
        @if let Some(at) = at { (time(at, now)) } @else { (dash()) }
    }
}

/// Returns the sign for an absent value.
pub(crate) fn dash() -> Markup {
    html! { span.absent { "–" } }
}

/// Returns a time in UTC, to the millisecond.
pub(crate) fn format_absolute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

/// Returns how long ago a time was, in its largest unit.
pub(crate) fn format_age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    if seconds < 0 {
        return format!("in {}", format_seconds(seconds.unsigned_abs()));
    }
    if seconds == 0 {
        "just now".to_owned()
    } else {
        format!("{} ago", format_seconds(seconds.unsigned_abs()))
    }
}

/// Returns a duration in its largest unit.
pub(crate) fn format_seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// As [`format_seconds`], without the parts of a second.
pub(crate) fn format_whole_seconds(seconds: f64) -> String {
    format_seconds(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs())
}

/// Returns the time between two events.
pub(crate) fn format_gap(from: Timestamp, to: Timestamp) -> String {
    let milliseconds = to.duration_since(from).as_millis();
    match milliseconds {
        ..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{:.1} s", to.duration_since(from).as_secs_f64()),
        _ => to
            .since(from)
            .and_then(|span| {
                span.round(jiff::SpanRound::new().largest(Unit::Hour).smallest(Unit::Second))
            })
            .map_or_else(|_| String::new(), |span| format!("{span:#}")),
    }
}

/// Returns a number with separated thousands.
pub(crate) fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number with separated thousands, or a dash if there is none.
pub(crate) fn optional_count(count: Option<u64>) -> Markup {
    html! { @if let Some(count) = count { (format_count(count)) } @else { (dash()) } }
}

/// Returns a number with its noun. `noun` is in the singular.
pub(crate) fn count_of(count: u64, noun: &str) -> String {
    let number = format_count(count);
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("{number} {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

/// Returns a share as a percentage. Its space does not break, so that the sign stays beside the number.
pub(crate) fn format_share(share: f64) -> String {
    format!("{:.1}\u{a0}%", share * 100.0)
}

/// Returns a state as icon and text: colour alone would not tell it. Tones: `good`, `bad`, `busy`,
/// `warning`, `neutral`.
pub(crate) fn badge(tone: &str, text: &str) -> Markup {
    let icon = match tone {
        "good" => "✓",
        "bad" => "✕",
        "busy" => "◔",
        "warning" => "!",
        _ => "–",
    };
    html! {
        span.badge data-tone=(tone) { span aria-hidden="true" { (icon) } " " (text) }
    }
}

pub(crate) fn order_status(status: OrderStatus) -> Markup {
    match status {
        OrderStatus::Processing => badge("busy", "Processing"),
        OrderStatus::Fulfilled => badge("good", "Fulfilled"),
        OrderStatus::Failed => badge("bad", "Failed"),
    }
}

/// Returns the name of a stage.
pub(crate) fn stage_name(stage: FailureStage) -> &'static str {
    match stage {
        FailureStage::Validation => "Validation",
        FailureStage::Fulfillment => "Fulfillment",
        FailureStage::DeadLetter => "Dead letter",
    }
}

/// Returns the name of a class of failed deliveries.
pub(crate) fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Transient => "transient",
        FailureClass::Permanent => "permanent",
        FailureClass::Poison => "poison",
    }
}

/// Returns a figure with its name and an explanation.
pub(crate) fn tile(name: &str, value: &Markup, hint: &Markup) -> Markup {
    html! {
        div.tile { dt { (name) } dd { (value) } dd.hint { (hint) } }
    }
}

/// Returns a region that the server keeps current on live pages.
pub(crate) fn region(name: &str, content: &Markup) -> Markup {
    html! {
        div data-region=(name) { (content) }
    }
}

/// Returns a table that scrolls sideways on narrow screens. `caption` names it for screen readers.
pub(crate) fn table(caption: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption.visually-hidden { (caption) }
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// Returns a titled part of a page.
pub(crate) fn panel(title: &str, content: &Markup) -> Markup {
    html! {
        section.panel { h2 { (title) } (content) }
    }
}

/// Returns the content that `show` makes of a loaded value, or the reason why there is none.
pub(crate) fn loaded<T>(value: &Loaded<T>, show: impl FnOnce(&T) -> Markup) -> Markup {
    match value {
        Ok(value) => show(value),
        Err(error) => {
            callout("error", html! { p { (error.problem.title) ": " (error.problem.detail) } })
        }
    }
}

/// Returns a warning for each source that does not answer.
pub(crate) fn missing_sources(unavailable: &Unavailable) -> Markup {
    let sources =
        [("Event store", &unavailable.event_store), ("Read model", &unavailable.read_model)];
    html! {
        @for (source, reason) in sources {
            @if let Some(reason) = reason {
                (callout("warning", html! { p { (source) ": " (reason) ". Its figures are missing." } }))
            }
        }
    }
}

/// Returns the text of a list without entries.
pub(crate) fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// Returns a link to an order. The id's end tells ids of one time apart, so the middle is left out.
pub(crate) fn order_link(id: uuid::Uuid) -> Markup {
    let text = id.to_string();
    html! {
        a.id href=(order_address(id)) title=(text) {
            (text.get(..8).unwrap_or_default()) "…" (text.get(28..).unwrap_or_default())
        }
    }
}

/// Returns the link to the next page of a list.
pub(crate) fn next_page(address: Option<&str>) -> Markup {
    html! {
        @if let Some(address) = address { p { a.button rel="next" href=(address) { "Next page" } } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separated_thousands() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(format_count(count), text);
        }
    }

    #[test]
    fn nouns_of_counts_are_singular_or_plural() {
        for (count, noun, text) in [
            (1, "delivery", "1 delivery"),
            (2, "delivery", "2 deliveries"),
            (0, "order", "0 orders"),
            (1_200, "event", "1,200 events"),
        ] {
            assert_eq!(count_of(count, noun), text);
        }
    }

    #[test]
    fn ages_have_their_largest_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (seconds_ago, text) in [
            (0, "just now"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3_600, "1 h ago"),
            (200_000, "2 d ago"),
            (-5, "in 5 s"),
        ] {
            let at = Timestamp::from_second(1_000_000 - seconds_ago).unwrap();
            assert_eq!(format_age(at, now), text);
        }
    }
}
