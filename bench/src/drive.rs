//! Runs a workload on a contender for a while, with so many clients at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::allocator::{self, Allocations};
use crate::contender::{Contender, Outcome};
use crate::data::Data;
use crate::measure::{Histogram, own_cpu};
use crate::workload::{Workload, operation};

#[derive(Clone)]
pub struct Load {
    pub clients: usize,
    pub time: Duration,
    pub data: Arc<Data>,
    pub what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Throughput, latencies, CPU time.
    Speed,
    /// Allocations, in a run of its own: counting them costs time.
    Memory,
}

/// What a run came to.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Operations a second.
    pub rate: f64,
    /// Microseconds.
    pub p50: f64,
    /// Microseconds.
    pub p99: f64,
    /// Microseconds of the client's CPU time for each operation.
    pub cpu: f64,
    /// For each operation.
    pub allocations: Option<Allocations>,
}

pub async fn drive<C: Contender>(
    contender: Arc<C>,
    workload: Workload,
    load: Load,
) -> Outcome<Sample> {
    match load.what {
        What::Speed => speed(contender, workload, load).await,
        What::Memory => memory(contender, workload, load).await,
    }
}

async fn speed<C: Contender>(contender: Arc<C>, workload: Workload, load: Load) -> Outcome<Sample> {
    // What comes before is not counted: connections are woken, statements prepared.
    let begin = Instant::now() + load.time.mul_f64(0.15).max(Duration::from_millis(30));
    let end = begin + load.time;
    let clients: Vec<_> = (0..load.clients)
        .map(|client| {
            let (contender, data) = (Arc::clone(&contender), Arc::clone(&load.data));
            tokio::spawn(async move {
                let mut latencies = Histogram::default();
                let mut busy = Duration::ZERO;
                let mut random = fastrand::Rng::with_seed(client as u64);
                loop {
                    let input = workload.prepare(&data, &mut random);
                    let started = Instant::now();
                    operation(&contender, workload, &data, input).await?;
                    let ended = Instant::now();
                    // At least one operation counts, also where it takes longer than the run.
                    if started >= begin && (ended <= end || latencies.total() == 0) {
                        latencies.record(ended - started);
                        busy += ended - started;
                    }
                    if ended >= end && latencies.total() > 0 {
                        return Ok::<_, crate::contender::Failure>((latencies, busy));
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep_until(begin.into()).await;
    let cpu = own_cpu();
    tokio::time::sleep_until(end.into()).await;
    let cpu = own_cpu() - cpu;
    let mut latencies = Histogram::default();
    let mut busy = Duration::ZERO;
    for client in clients {
        let (its_latencies, its_busy) = client.await??;
        latencies.add(&its_latencies);
        busy += its_busy;
    }
    let operations = latencies.total() as f64;
    Ok(Sample {
        // By the time spent in operations: what they are given is made in between.
        rate: operations * load.clients as f64 / busy.as_secs_f64(),
        p50: latencies.quantile(0.5),
        p99: latencies.quantile(0.99),
        cpu: cpu / operations,
        allocations: None,
    })
}

async fn memory<C: Contender>(
    contender: Arc<C>,
    workload: Workload,
    load: Load,
) -> Outcome<Sample> {
    let (warm_up, counted) = if workload.stores_chunks() { (1, 2) } else { (100, 50) };
    let mut random = fastrand::Rng::with_seed(0);
    let mut sum = Allocations::default();
    let started = Instant::now();
    for turn in 0..warm_up + counted {
        let input = workload.prepare(&load.data, &mut random);
        allocator::start();
        let outcome = operation(&contender, workload, &load.data, input).await;
        let allocations = allocator::stop();
        outcome?;
        if turn >= warm_up {
            sum.calls += allocations.calls;
            sum.bytes += allocations.bytes;
            sum.peak = sum.peak.max(allocations.peak);
        }
    }
    let counted = counted as u64;
    let allocations =
        Allocations { calls: sum.calls / counted, bytes: sum.bytes / counted, peak: sum.peak };
    let rate = f64::from(warm_up as u32 + counted as u32) / started.elapsed().as_secs_f64();
    Ok(Sample { rate, p50: f64::NAN, p99: f64::NAN, cpu: f64::NAN, allocations: Some(allocations) })
}
