//! Every second of a run, in the interval log format of HdrHistogram (version 1.3; histograms in the
//! compressed V2 encoding), which its processors and viewers read.

use crate::interval::{INTERVAL, Interval};
use crate::report::Latencies;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// Microseconds in the milliseconds in which the log tells each interval's longest.
const MICROS_PER_MILLI: f64 = 1000.0;

/// What one second was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// Which, from 0.
    pub index: u64,
    /// Answers that arrived in it.
    pub count: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Percentiles, microseconds, as far as there are enough samples: 50, 99 and 99.9.
    pub percentiles: [Option<u64>; 3],
    /// The longest, microseconds.
    pub max: u64,
}

/// The seconds of a run. Their histograms are kept encoded, a kilobyte or two for each.
pub struct IntervalLog {
    began: SystemTime,
    seconds: Vec<Second>,
    encoded: Vec<Vec<u8>>,
    serializer: V2DeflateSerializer,
}

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum IntervalLogError {
    /// A line is none of such a log.
    #[error("line {line} of the interval log makes no sense")]
    Line {
        /// Among the lines that are no comments, from 1.
        line: usize,
    },
    /// A histogram cannot be decoded.
    #[error("the histogram of interval {interval} makes no sense: {message}")]
    Histogram {
        /// Its number, from 1.
        interval: usize,
        /// Why.
        message: String,
    },
}

impl Default for IntervalLog {
    fn default() -> Self {
        Self::begin()
    }
}

impl IntervalLog {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        let serializer = V2DeflateSerializer::new();
        Self { began: crate::clock::wall(), seconds: Vec::new(), encoded: Vec::new(), serializer }
    }

    /// Measuring begins now.
    pub fn restart(&mut self) {
        self.began = crate::clock::wall();
    }

    /// Adds the next interval.
    ///
    /// # Panics
    /// Never: histograms with these bounds can be encoded.
    pub fn push(&mut self, interval: &Interval) -> Second {
        let Interval { index, latencies, errors } = interval;
        let second = Second {
            index: *index,
            count: latencies.count(),
            errors: *errors,
            percentiles: [50.0, 99.0, 99.9].map(|percentile| latencies.percentile(percentile)),
            max: latencies.max(),
        };
        let mut encoded = Vec::new();
        self.serializer.serialize(&latencies.0, &mut encoded).expect("a vector takes everything");
        self.seconds.push(second);
        self.encoded.push(encoded);
        second
    }

    /// The seconds so far.
    #[must_use]
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// The whole log as text, with `comments` at its head.
    ///
    /// # Panics
    /// Never: what `push` encoded can be decoded.
    #[must_use]
    pub fn text(&self, comments: &[String]) -> Vec<u8> {
        let mut text = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("[Histogram log format version 1.3]");
        comments.iter().for_each(|comment| _ = builder.add_comment(comment));
        builder.with_start_time(self.began).with_base_time(self.began);
        builder.with_max_value_divisor(MICROS_PER_MILLI);
        let mut log = builder.begin_log_with(&mut text, &mut serializer).expect("a vector takes everything");
        for (second, encoded) in self.seconds.iter().zip(&self.encoded) {
            let histogram: Histogram<u64> =
                Deserializer::new().deserialize(&mut encoded.as_slice()).expect("it was encoded here");
            let start = INTERVAL * second.index as u32;
            log.write_histogram(&histogram, start, INTERVAL, None).expect("a vector takes everything");
        }
        text
    }
}

/// An interval that was read from a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// When it began, from the beginning of the log.
    pub start: Duration,
    /// What it holds.
    pub latencies: Latencies,
}

/// Reads a log, whoever wrote it.
///
/// # Errors
/// When it makes no sense.
pub fn read(text: &[u8]) -> Result<Vec<Logged>, IntervalLogError> {
    let mut intervals = Vec::new();
    for (index, entry) in IntervalLogIterator::new(text).enumerate() {
        let entry = entry.map_err(|_| IntervalLogError::Line { line: index + 1 })?;
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let wrong = |message: String| IntervalLogError::Histogram { interval: intervals.len() + 1, message };
        let encoded = STANDARD.decode(interval.encoded_histogram());
        let encoded = encoded.map_err(|error| wrong(error.to_string()))?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut encoded.as_slice())
            .map_err(|error| wrong(error.to_string()))?;
        let mut latencies = Latencies::new();
        latencies.0.add(&histogram).map_err(|error| wrong(error.to_string()))?;
        intervals.push(Logged { start: interval.start_timestamp(), latencies });
    }
    Ok(intervals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(index: u64, micros: impl IntoIterator<Item = u64>) -> Interval {
        let mut interval = Interval { index, errors: index, ..Interval::default() };
        micros.into_iter().for_each(|micros| interval.latencies.record(Duration::from_micros(micros)));
        interval
    }

    #[test]
    fn what_is_written_is_read_back() {
        let intervals = [interval(0, 1..=2000), interval(1, []), interval(2, [7, 599_000_000])];
        let mut log = IntervalLog::begin();
        let second = log.push(&intervals[0]);
        assert_eq!((second.count, second.max), (2000, 2000));
        assert_eq!(second.percentiles, [Some(1000), Some(1980), None], "two samples are beyond p99.9");
        intervals[1..].iter().for_each(|interval| _ = log.push(interval));
        let text = log.text(&["evenkeel bench, microseconds".to_owned()]);
        let lines = String::from_utf8(text.clone()).unwrap();
        assert!(lines.contains("#evenkeel bench, microseconds\n"), "{lines}");
        assert!(lines.starts_with("#[Histogram log format version 1.3]\n"), "{lines}");
        assert!(lines.contains("\n0.000,1.000,2.000,HISTFAAA"), "{lines}");
        let read = read(&text).unwrap();
        let starts: Vec<u64> = read.iter().map(|logged| logged.start.as_secs()).collect();
        assert_eq!(starts, [0, 1, 2]);
        for (logged, interval) in read.iter().zip(&intervals) {
            assert_eq!(logged.latencies, interval.latencies);
        }
    }

    #[test]
    fn a_damaged_log_is_an_error() {
        let mut log = IntervalLog::begin();
        log.push(&interval(0, 1..=50));
        let text = String::from_utf8(log.text(&[])).unwrap();
        assert!(read(text.replace("HISTFAAA", "AAAAFAAA").as_bytes()).is_err());
        assert!(read(text.replace("HISTFAAA", "!").as_bytes()).is_err());
        assert!(matches!(read(b"0.000,x\n"), Err(IntervalLogError::Line { line: 1 })));
    }
}
