//! Groups of failures by code: how many, since when, and whether they become more.

use std::cmp::Ordering;

use api_types::{DeadLetterGroup, DeadLetterSummary, FailureFilter};
use jiff::Timestamp;
use maud::{Markup, html};

use super::filter::LetterFilter;
use super::no_letters;
use crate::api::{Api, Loaded};
use crate::components::{format_count, loaded, panel, table, time};

/// The groups of a stage.
pub(super) struct Groups {
    pub(super) summary: Loaded<DeadLetterSummary>,
}

impl Groups {
    /// Loads all groups that the filter matches apart from its code, so that the visitor sees the others.
    pub(super) async fn load(api: &Api, filter: &LetterFilter) -> Self {
        let filter = FailureFilter { code: None, ..filter.to_api() };
        Self { summary: api.get_with("/v1/dead-letters", &filter).await }
    }

    pub(super) fn codes(&self) -> Vec<&str> {
        let groups = self.summary.as_ref().map_or(&[][..], |summary| &summary.groups);
        groups.iter().map(|group| group.code.as_str()).collect()
    }

    /// Returns the number of failures that match the filter; `None` if the groups are missing.
    pub(super) fn count_matching(&self, filter: &LetterFilter) -> Option<u64> {
        let summary = self.summary.as_ref().ok()?;
        let is_matching =
            |group: &&DeadLetterGroup| filter.code.as_ref().is_none_or(|code| *code == group.code);
        Some(summary.groups.iter().filter(is_matching).map(|group| group.count).sum())
    }

    pub(super) fn show(&self, filter: &LetterFilter, now: Timestamp) -> Markup {
        panel(
            "Causes",
            &loaded(&self.summary, |summary| {
                if summary.groups.is_empty() {
                    return no_letters(filter.stage, filter.is_restricted());
                }
                let columns = ["Code", "Orders", "Oldest", "Newest", "Last hour"];
                let rows = html! {
                    @for group in &summary.groups { (show_group(group, filter, now)) }
                };
                table("Failures by code", &columns, &rows)
            }),
        )
    }
}

fn show_group(group: &DeadLetterGroup, filter: &LetterFilter, now: Timestamp) -> Markup {
    let of_code = LetterFilter { code: Some(group.code.clone()), ..filter.clone() };
    let is_chosen = filter.code.as_ref() == Some(&group.code);
    html! {
        tr {
            th scope="row" {
                a href=(of_code.list_address()) aria-current=[is_chosen.then_some("true")] {
                    (group.code)
                }
            }
            td { (format_count(group.count)) }
            td { (time(group.oldest_failed_at, now)) }
            td { (time(group.newest_failed_at, now)) }
            td.nowrap { (trend(group)) }
        }
    }
}

/// Returns the failures of the last hour, compared with the hour before.
fn trend(group: &DeadLetterGroup) -> Markup {
    let (last, previous) = (group.failed_last_hour, group.failed_previous_hour);
    let (arrow, word, tone) = match last.cmp(&previous) {
        Ordering::Greater => ("↑", "More:", "bad"),
        Ordering::Less => ("↓", "Fewer:", "good"),
        Ordering::Equal => ("→", "As many:", "neutral"),
    };
    html! {
        span data-tone=(tone) { span aria-hidden="true" { (arrow) } span.visually-hidden { (word) } }
        " " (format_count(last)) " (before: " (format_count(previous)) ")"
    }
}
