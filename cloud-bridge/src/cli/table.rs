//! Tables and small charts for a terminal.

use super::bytes;
use crate::service::view::ArrivingView;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanDuration;
use std::time::Duration;

/// A table with a header and no frame; it fits the terminal's width.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table
}

/// A row of values as bars, scaled between their least and their greatest.
pub(crate) fn spark(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    bars(values, least, greatest)
}

/// A row of values as bars, scaled between two.
pub(crate) fn bars(values: &[f64], least: f64, greatest: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |value: &f64| {
        let share = if greatest > least { (value - least) / (greatest - least) } else { 0.0 };
        BARS[((share * 7.0).round() as usize).min(7)]
    };
    values.iter().map(bar).collect()
}

/// How long ago a moment was, in the largest unit that says something.
pub(crate) fn ago(unix_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(unix_ms) / 1_000;
    match seconds {
        _ if unix_ms == 0 => "never".into(),
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// When a moment comes, in the largest unit that says something.
pub(crate) fn ends(unix_ms: u64, now_ms: u64) -> String {
    match unix_ms.saturating_sub(now_ms) / 1_000 {
        0 => "it has ended".into(),
        left => format!("in {}", HumanDuration(Duration::from_secs(left))),
    }
}

/// How far something has arrived, how fast it comes and when it will be there.
pub(crate) fn arriving(of: &ArrivingView) -> String {
    let share = u128::from(of.arrived) * 100 / u128::from(of.total.max(1));
    let left = of.left_s.map(|s| format!("{} left", HumanDuration(Duration::from_secs(s))));
    let left = left.unwrap_or("nothing comes".into());
    format!("{share} % of {}, {}/s, {left}", bytes(of.total), bytes(of.rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_span_from_least_to_greatest() {
        assert_eq!(spark(&[0.0, 3.5, 7.0]), "▁▅█");
        assert_eq!(spark(&[2.0, 2.0]), "▁▁");
        assert_eq!(spark(&[]), "");
        assert_eq!(bars(&[0.05, 0.06, 0.0, 0.12], 0.0, 0.12), "▄▅▁█");
    }

    #[test]
    fn times_are_told_in_one_unit() {
        assert_eq!(ago(0, 5_000), "never");
        assert_eq!(ago(1_000, 5_000), "4 s ago");
        assert_eq!(ago(1_000, 3_601_000), "1 h ago");
    }

    #[test]
    fn what_arrives_is_told_with_its_rate_and_its_end() {
        let mut of = ArrivingView { devices: 1, arrived: 41 << 20, total: 100 << 20, rate: 2 << 20, left_s: Some(29) };
        assert_eq!(arriving(&of), "41 % of 100.00 MiB, 2.00 MiB/s, 29 seconds left");
        (of.rate, of.left_s) = (0, None);
        assert_eq!(arriving(&of), "41 % of 100.00 MiB, 0 B/s, nothing comes");
    }
}
