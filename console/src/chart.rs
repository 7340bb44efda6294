//! Charts of values over time, as SVG with axes, a text for each slot, and a table of the same values.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::components::{empty, table};

/// Height and width of the plot's coordinate system. The plot is stretched to the page.
const SIZE: f64 = 100.0;
/// Labels on the time axis.
const N_TIME_LABELS: usize = 4;

/// A chart: equal slots of time, and a value or none for each slot and series.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) slots: &'a [Timestamp],
    pub(crate) series: Vec<Series<'a>>,
    pub(crate) format: fn(f64) -> String,
    /// Upper end of the axis; `None`: the largest value, rounded up.
    pub(crate) max: Option<f64>,
}

/// The values of one line.
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    /// Tone of the line; see [`badge`](crate::components::badge).
    pub(crate) tone: &'a str,
    /// One value for each slot.
    pub(crate) values: Vec<Option<f64>>,
}

impl Chart<'_> {
    /// Returns the figure.
    pub(crate) fn render(&self) -> Markup {
        let top = self.max.unwrap_or_else(|| round_up(self.largest_value()));
        html! {
            figure.chart {
                figcaption {
                    (self.title)
                    @if self.series.len() > 1 {
                        span.legend {
                            @for series in &self.series {
                                span data-tone=(series.tone) { (series.name) }
                            }
                        }
                    }
                }
                div.plot {
                    div.axis-y aria-hidden="true" {
                        @for share in [1.0, 0.5, 0.0] { span { ((self.format)(top * share)) } }
                    }
                    (self.drawing(top))
                    div.axis-x aria-hidden="true" {
                        @for label in self.time_labels() { span { (label) } }
                    }
                }
                details { summary { "Values" } (self.value_table()) }
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a chart has far fewer than 2^52 slots")]
    fn drawing(&self, top: f64) -> Markup {
        let n_slots = self.slots.len();
        let width = SIZE / n_slots.max(1) as f64;
        html! {
            svg viewBox={ "0 0 " (SIZE) " " (SIZE) } preserveAspectRatio="none" role="img"
                aria-label=(self.summary()) {
                @for height in [0.0, SIZE / 2.0, SIZE] {
                    line.grid x1="0" x2=(SIZE) y1=(height) y2=(height) {}
                }
                @for series in &self.series {
                    path data-tone=(series.tone) d=(line_path(&series.values, width, top)) {}
                }
                @for index in 0..n_slots {
                    rect.slot x=(format_coordinate(index as f64 * width)) y="0"
                        width=(format_coordinate(width)) height=(SIZE) {
                        title { (self.slot_text(index)) }
                    }
                }
            }
        }
    }

    fn largest_value(&self) -> f64 {
        let values = self.series.iter().flat_map(|series| series.values.iter().flatten());
        values.copied().fold(0.0, f64::max)
    }

    /// Returns the chart in a sentence: the newest value of each line.
    fn summary(&self) -> String {
        let newest = |series: &Series<'_>| {
            let value = series.values.iter().rev().find_map(|value| *value);
            let value = value.map_or_else(|| "no values".to_owned(), self.format);
            format!("{}: {value}", series.name)
        };
        let lines: Vec<_> = self.series.iter().map(newest).collect();
        format!("{}. Newest values: {}.", self.title, lines.join(", "))
    }

    fn slot_text(&self, index: usize) -> String {
        let time = self.slots.get(index).map(|slot| format_slot(*slot)).unwrap_or_default();
        let values = self.series.iter().map(|series| {
            let value = series.values.get(index).copied().flatten();
            format!("{}: {}", series.name, value.map_or_else(|| "–".to_owned(), self.format))
        });
        let values: Vec<_> = values.collect();
        format!("{time} UTC\n{}", values.join("\n"))
    }

    fn time_labels(&self) -> Vec<String> {
        let last = self.slots.len().saturating_sub(1);
        let indexes = (0..N_TIME_LABELS).map(|label| last * label / (N_TIME_LABELS - 1));
        indexes.filter_map(|index| self.slots.get(index)).map(|slot| format_slot(*slot)).collect()
    }

    fn value_table(&self) -> Markup {
        if self.series.iter().all(|series| series.values.iter().all(Option::is_none)) {
            return empty("No values.");
        }
        let columns: Vec<_> = std::iter::once("Time (UTC)")
            .chain(self.series.iter().map(|series| series.name))
            .collect();
        let rows = html! {
            @for (index, slot) in self.slots.iter().enumerate().rev() {
                @if self.series.iter().any(|series| series.values.get(index).copied().flatten().is_some()) {
                    tr {
                        th scope="row" { (format_slot(*slot)) }
                        @for series in &self.series {
                            @let value = series.values.get(index).copied().flatten();
                            td.number { (value.map_or_else(|| "–".to_owned(), self.format)) }
                        }
                    }
                }
            }
        };
        table(self.title, &columns, &rows)
    }
}

/// Returns the path of a line. A slot without a value interrupts the line.
#[expect(clippy::cast_precision_loss, reason = "a chart has far fewer than 2^52 slots")]
fn line_path(values: &[Option<f64>], width: f64, top: f64) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_drawing = false;
            continue;
        };
        let x = (index as f64 + 0.5) * width;
        let y = SIZE - (value / top * SIZE).clamp(0.0, SIZE);
        let y = format_coordinate(y);
        if is_drawing {
            path.extend(["L", &format_coordinate(x), " ", &y]);
        } else {
            // A short line makes a value without neighbours visible.
            let start = format_coordinate(x - width / 2.0);
            path.extend(["M", &start, " ", &y, "L", &format_coordinate(x), " ", &y]);
        }
        is_drawing = true;
    }
    path
}

fn format_coordinate(value: f64) -> String {
    format!("{value:.2}")
}

fn format_slot(slot: Timestamp) -> String {
    slot.strftime("%H:%M").to_string()
}

/// Returns the smallest of 1, 2 or 5 times a power of ten that is not below the value.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let magnitude = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_ends_at_a_round_number() {
        for (value, end) in
            [(0.0, 1.0), (0.3, 0.5), (1.0, 1.0), (7.0, 10.0), (23.0, 50.0), (120.0, 200.0)]
        {
            assert!((round_up(value) - end).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }

    #[test]
    fn slot_without_a_value_interrupts_the_line() {
        let path = line_path(&[Some(0.0), None, Some(2.0)], 10.0, 2.0);
        assert_eq!(path, "M0.00 100.00L5.00 100.00M20.00 0.00L25.00 0.00");
    }

    #[test]
    fn chart_without_values_has_no_table() {
        let slots = [Timestamp::UNIX_EPOCH];
        for (value, has_table) in [(None, false), (Some(0.0), true)] {
            let series = vec![Series { name: "mean", tone: "busy", values: vec![value] }];
            let format = |value: f64| format!("{value}");
            let chart = Chart { title: "Time", slots: &slots, series, format, max: None };
            let html = chart.render().into_string();
            assert_eq!(
                (html.contains("<table>"), html.contains("No values.")),
                (has_table, !has_table)
            );
        }
    }

    #[test]
    fn chart_shows_hostile_names_as_text() {
        let slots = [Timestamp::UNIX_EPOCH];
        let series = vec![Series { name: "<script>", tone: "good", values: vec![Some(1.0)] }];
        let format = |value: f64| format!("{value}");
        let chart = Chart { title: "a<b", slots: &slots, series, format, max: None };
        let html = chart.render().into_string();
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;"), "{html}");
    }
}
