//! Latencies, CPU time, and what a run of operations comes to.

use std::time::Duration;

/// Latencies by size: 64 steps for each doubling, so a step is at most 1.6 % wide.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

const STEPS: u32 = 64;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (STEPS * 40) as usize], total: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(u64::from(STEPS));
        let doublings = nanos.ilog2() - STEPS.ilog2();
        let step = (nanos >> doublings) as u32 - STEPS;
        let last = self.counts.len() - 1;
        self.counts[((doublings * STEPS + step) as usize).min(last)] += 1;
        self.total += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that this share of the operations did not exceed, in microseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (place, count) in (0_u32..).zip(&self.counts) {
            seen += u64::from(*count);
            if seen >= rank.max(1) {
                let (doublings, step) = (place / STEPS, place % STEPS);
                return (f64::from(STEPS + step) + 0.5) * f64::from(doublings).exp2() / 1_000.0;
            }
        }
        f64::NAN
    }
}

/// The CPU time that this process has used so far, in microseconds: its own and the kernel's for it.
pub fn own_cpu() -> f64 {
    cpu(libc::RUSAGE_SELF)
}

/// The same of the child processes that have ended.
pub fn childrens_cpu() -> f64 {
    cpu(libc::RUSAGE_CHILDREN)
}

fn cpu(who: libc::c_int) -> f64 {
    // SAFETY: an all-zero `rusage` is valid, and the call writes into it and nowhere else.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// The one in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
