//! The thread that waits for the workers: merges their samples, looks at the broker's process,
//! shows the live table.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::process_probe::{ProcessProbe, ProcessState};
use crate::prometheus::LiveFigures;
use crate::recorder::{DRAIN, Report, Schedule, WARMUP};
use crate::series::{Interval, Series, per};

/// Longest sleep between two looks at the workers.
const LOOK_STEP: Duration = Duration::from_millis(200);

/// How a run is shown while it goes on.
#[derive(Debug)]
pub struct Display {
    /// Samples per line of the live table; 0 shows none.
    pub samples_per_line: u32,
    /// True if figures go to standard output, false if standard error has to do.
    pub is_on_stdout: bool,
    /// Figures for Prometheus.
    pub live: Option<LiveFigures>,
}

impl Display {
    /// Shows nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self { samples_per_line: 0, is_on_stdout: false, live: None }
    }

    fn line(&self, text: &str) {
        // A reader that went away does not end the run.
        if self.is_on_stdout {
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        } else if std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Reporter {
    series: Series,
    /// Highest finished sample of each worker; `DRAIN` for one that is at its end.
    finished: Vec<Option<u32>>,
    /// Highest closed sample.
    closed: u32,
    probe: Option<ProcessProbe>,
    last_state: Option<ProcessState>,
    display: Display,
    shown: Option<Interval>,
    shown_samples: u32,
    has_heading: bool,
}

impl Reporter {
    /// A reporter for `workers` workers.
    #[must_use]
    pub fn new(
        workers: usize,
        schedule: Schedule,
        probe: Option<ProcessProbe>,
        display: Display,
    ) -> Self {
        Self {
            series: Series::new(schedule),
            finished: vec![None; workers],
            closed: WARMUP,
            probe,
            last_state: None,
            display,
            shown: None,
            shown_samples: 0,
            has_heading: false,
        }
    }

    /// Works until every worker is at its end.
    #[must_use]
    pub fn run(mut self, reports: &Receiver<Report>) -> Series {
        loop {
            match reports.recv_timeout(LOOK_STEP) {
                Ok(Report::Sample { worker, sample }) => {
                    self.series.add(&sample);
                    let finished = &mut self.finished[worker];
                    *finished = Some(finished.map_or(sample.index, |it| it.max(sample.index)));
                    self.close_finished();
                }
                Ok(Report::Done { worker }) => {
                    self.finished[worker] = Some(DRAIN);
                    self.close_finished();
                    if self.finished.iter().all(|it| *it == Some(DRAIN)) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.series.finish();
        self.series
    }

    /// Closes every sample that all workers have finished.
    fn close_finished(&mut self) {
        let Some(slowest) = self.finished.iter().copied().min().flatten() else { return };
        if slowest == WARMUP && self.last_state.is_none() {
            self.last_state = self.look();
        }
        if slowest <= self.closed {
            return;
        }
        let state = self.look();
        let cost = state.zip(self.last_state).map(|(now, before)| now.since(&before));
        self.last_state = state;
        let before = self.series.intervals.len();
        if slowest == DRAIN {
            self.series.finish();
            self.series.charge_last(cost);
        } else {
            self.series.close(slowest, cost);
        }
        self.closed = slowest;
        for index in before..self.series.intervals.len() {
            self.show(index);
        }
    }

    fn look(&self) -> Option<ProcessState> {
        self.probe.as_ref().and_then(ProcessProbe::look)
    }

    fn show(&mut self, index: usize) {
        let interval = self.series.intervals[index].clone();
        if let Some(live) = &self.display.live {
            live.update(&interval);
        }
        if self.display.samples_per_line == 0 {
            return;
        }
        match &mut self.shown {
            Some(shown) => shown.extend(&interval),
            None => self.shown = Some(interval),
        }
        self.shown_samples += 1;
        if self.shown_samples < self.display.samples_per_line {
            return;
        }
        self.shown_samples = 0;
        let Some(shown) = self.shown.take() else { return };
        if !self.has_heading {
            self.has_heading = true;
            self.display.line(HEADING);
        }
        self.display.line(&live_line(&shown));
    }
}

const HEADING: &str = "\
    time s       msg/s      MB/s   p50 ms   p99 ms   max ms   errors  msg/req  server CPU";

/// One line of the live table: figures of this interval only.
fn live_line(interval: &Interval) -> String {
    let ms = |micros: u64| micros as f64 / 1e3;
    let server = interval.server.map_or_else(
        || "-".to_owned(),
        |it| format!("{:.0} %", per(it.cpu_seconds, interval.seconds) * 100.0),
    );
    format!(
        "{:>6.1} {:>11.0} {:>9.1} {:>8.2} {:>8.2} {:>8.1} {:>8} {:>8.1} {:>11}",
        interval.start_seconds + interval.seconds,
        interval.rate(),
        per(interval.counts.bytes as f64, interval.seconds) / 1e6,
        ms(interval.latency_at(0.5)),
        ms(interval.latency_at(0.99)),
        ms(interval.latency_at(1.0)),
        interval.counts.failed,
        per(interval.counts.messages as f64, interval.counts.requests as f64),
        server,
    )
}
