//! Figures of a suite's document: over the blocks of a cell (a variant in one class), and between
//! cells of the same round.

use serde_json::Value;

use crate::quantity::grouped;

/// Smallest, middle and largest of some numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// `None` without numbers.
    pub(super) fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Some(Self { min, median, max })
    }
}

/// The blocks of a cell.
pub(super) fn blocks(cell: &Value) -> &[Value] {
    cell["blocks"].as_array().map_or(&[], Vec::as_slice)
}

/// The figure `name` of every block that has it.
pub(super) fn figures(cell: &Value, name: &str) -> Vec<f64> {
    blocks(cell).iter().filter_map(|block| block["figures"][name].as_f64()).collect()
}

/// The spread of a figure.
pub(super) fn spread(cell: &Value, name: &str) -> Option<Spread> {
    Spread::of(&figures(cell, name))
}

/// The spread of a number that blocks have beside their figures.
pub(super) fn spread_beside(cell: &Value, name: &str) -> Option<Spread> {
    let numbers: Vec<_> = blocks(cell).iter().filter_map(|block| block[name].as_f64()).collect();
    Spread::of(&numbers)
}

/// The rate of every block over the floor just before it, in percent.
pub(super) fn percent_of_floor(cell: &Value, floor: &str) -> Option<Spread> {
    let ratio = |block: &Value| {
        let rate = block["figures"]["messages_per_second"].as_f64()?;
        Some(rate / block[floor].as_f64()? * 100.0).filter(|it| it.is_finite())
    };
    Spread::of(&blocks(cell).iter().filter_map(ratio).collect::<Vec<_>>())
}

/// The figure of `cell` over that of `base`, of each round that both have.
pub(super) fn ratio_between(cell: &Value, base: &Value, name: &str) -> Option<Spread> {
    let ratio = |block: &Value| {
        let of_round = |it: &&Value| it["round"] == block["round"];
        let base = blocks(base).iter().find(of_round)?["figures"][name].as_f64()?;
        Some(block["figures"][name].as_f64()? / base).filter(|it| it.is_finite())
    };
    Spread::of(&blocks(cell).iter().filter_map(ratio).collect::<Vec<_>>())
}

/// One figure of a cell over another, of each block.
pub(super) fn ratio_within(cell: &Value, name: &str, over: &str) -> Option<Spread> {
    let ratio = |block: &Value| {
        let figures = &block["figures"];
        Some(figures[name].as_f64()? / figures[over].as_f64()?).filter(|it| it.is_finite())
    };
    Spread::of(&blocks(cell).iter().filter_map(ratio).collect::<Vec<_>>())
}

/// The cell of a row's variant.
pub(super) fn find<'a>(cells: &[&'a Value], row: &str, variant: &str) -> Option<&'a Value> {
    cells.iter().copied().find(|cell| cell["row"] == row && cell["variant"] == variant)
}

/// A number for a page, with commas if it has no decimals.
pub(super) fn decimal(value: f64, decimals: usize) -> String {
    if decimals == 0 {
        grouped(value.round().max(0.0) as u64)
    } else {
        format!("{value:.decimals$}")
    }
}

/// Text that does not end a table's cell.
pub(super) fn cell_text(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The day of a time in milliseconds since the Unix epoch, in UTC.
pub(super) fn day(ms: i64) -> String {
    // Days are counted from 1 March of year 0, so that the leap day is the last of its year.
    let days = ms.div_euclid(86_400_000) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_between_the_middle_ones() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_of_blocks_of_the_same_round() {
        let block = |round: u64, value: f64| json!({ "round": round, "figures": { "x": value } });
        let cell = json!({ "blocks": [block(0, 10.0), block(2, 90.0)] });
        let base = json!({ "blocks": [block(2, 100.0), block(1, 1.0), block(0, 20.0)] });
        let found = ratio_between(&cell, &base, "x").unwrap();
        assert_eq!((found.min, found.median, found.max), (0.5, 0.7, 0.9));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (ms, expected) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_767_225_599_999, "2025-12-31"),
            (1_767_225_600_000, "2026-01-01"),
        ] {
            assert_eq!(day(ms), expected);
        }
    }
}
