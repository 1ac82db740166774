//! The percentile distribution of a run, as HdrHistogram prints it (`.hgrm`): what its plotters read.

use crate::report::Latencies;
use std::fmt::Write;

/// Lines for each halving of the distance to 100%.
const TICKS_PER_HALF: u32 = 5;
/// Values are microseconds here and milliseconds in the table.
const MICROS_PER_MILLI: f64 = 1000.0;

/// The table, in milliseconds.
///
/// # Panics
/// Never: a string takes everything.
#[must_use]
pub fn percentile_table(latencies: &Latencies) -> String {
    let histogram = &latencies.0;
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let (value, quantile) =
            (step.value_iterated_to() as f64 / MICROS_PER_MILLI, step.quantile_iterated_to());
        write!(text, "{value:12.3} {quantile:2.12} {total:10}").expect("a string takes everything");
        if quantile < 1.0 {
            write!(text, " {:14.2}", 1.0 / (1.0 - quantile)).expect("a string takes everything");
        }
        text.push('\n');
    }
    let [mean, deviation, max] =
        [histogram.mean(), histogram.stdev(), histogram.max() as f64].map(|micros| micros / MICROS_PER_MILLI);
    let buckets = histogram.buckets();
    write!(
        text,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n\
         #[Max     = {max:12.3}, Total count    = {:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {:12}]\n",
        histogram.len(),
        2048
    )
    .expect("a string takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_table_reads_back() {
        let mut latencies = Latencies::new();
        (1..=10_000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let table = percentile_table(&latencies);
        let rows: Vec<Vec<f64>> = table
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]), "{table}");
        for quantile in [0.5, 0.75, 0.9] {
            let row = rows.iter().find(|row| (row[1] - quantile).abs() < 1e-9).unwrap();
            assert!((row[0] - quantile * 10.0).abs() < 0.02, "{row:?}");
            assert!((row[2] - quantile * 10_000.0).abs() < 20.0, "{row:?}");
            assert!((row[3] - 1.0 / (1.0 - quantile)).abs() < 0.01, "{row:?}");
        }
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 10_000.0, 3), "{table}");
        assert!(table.contains("Total count    =        10000]"), "{table}");
        assert!(percentile_table(&Latencies::new()).contains("Total count    =            0]"));
    }
}
