//! The figures as a table.

use std::fmt::{self, Write as _};

use sqlx::{Connection, PgConnection};

use crate::allocator::Allocations;
use crate::contender::Outcome;
use crate::contenders::{self, CHANCERY, LEGEND};
use crate::drive::Sample;
use crate::idle::Idle;
use crate::measure::median;
use crate::options::Options;
use crate::workload::Workload;

/// Medians of one contender's turns at one workload.
#[derive(Clone)]
pub struct Figure {
    pub contender: &'static str,
    pub workload: Workload,
    pub clients: usize,
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
    pub cpu: f64,
    pub allocations: Option<Allocations>,
    /// Of each round, for ratios: the machine differs from round to round.
    pub rates: Vec<f64>,
    pub p99s: Vec<f64>,
}

impl Figure {
    pub fn new(
        contender: &'static str,
        workload: Workload,
        clients: usize,
        samples: &[Sample],
        allocations: Option<Allocations>,
    ) -> Self {
        Self {
            contender,
            workload,
            clients,
            rate: median(samples.iter().map(|s| s.rate)),
            p50: median(samples.iter().map(|s| s.p50)),
            p99: median(samples.iter().map(|s| s.p99)),
            cpu: median(samples.iter().map(|s| s.cpu)),
            allocations,
            rates: samples.iter().map(|s| s.rate).collect(),
            p99s: samples.iter().map(|s| s.p99).collect(),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contender, clients, rate, p50, p99, cpu, .. } = self;
        let workload = self.workload.name();
        write!(
            f,
            "{workload:18} {clients:3} clients  {contender:15} {rate:9.1}/s  p50 {p50:8.0} µs  \
             p99 {p99:8.0} µs  cpu {cpu:8.1} µs"
        )?;
        if let Some(Allocations { calls, bytes, peak }) = self.allocations {
            write!(f, "  {calls} allocations, {bytes} bytes, peak {peak}")?;
        }
        Ok(())
    }
}

pub struct Report {
    pub figures: Vec<Figure>,
    pub idle: Option<Idle>,
    command: String,
    connections: u32,
    rounds: usize,
    seconds: f64,
    machine: String,
    server: String,
}

/// A figure of the project's that is looked at in each run.
struct Goal {
    workload: Workload,
    clients: usize,
    contender: &'static str,
    against: &'static str,
    what: What,
    at_least: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    /// The goal is a rate this many times the other's.
    Rate,
    /// The goal is a p99 of at most this many times the other's.
    Tail,
}

fn goals() -> Vec<Goal> {
    use Workload::*;
    use contenders::*;
    let rate = |workload, clients, against, at_least| Goal {
        workload,
        clients,
        contender: CHANCERY,
        against,
        what: What::Rate,
        at_least,
    };
    let mut goals = Vec::new();
    for clients in [1, 8, 32] {
        goals.push(rate(GetById, clients, SQLX, 2.0));
        goals.push(rate(GetById, clients, TOKIO_POSTGRES, 1.0));
        goals.push(rate(GetById, clients, SQLX_KEPT, 0.9));
    }
    goals.push(Goal { contender: CHANCERY_LIFO, ..rate(GetById, 8, TOKIO_POSTGRES, 1.2) });
    goals.push(rate(GetById, 8, SEAORM, 3.0));
    goals.push(rate(GetById, 8, SQLALCHEMY, 20.0));
    for clients in [8, 32] {
        goals.push(Goal { what: What::Tail, ..rate(GetById, clients, TOKIO_POSTGRES, 1.5) });
    }
    goals.push(rate(GetById, 1, SQLX_KEPT, 0.97));
    goals.push(rate(Turn, 8, TOKIO_POSTGRES, 1.4));
    for against in [SQLX, SEAORM, DIESEL] {
        goals.push(rate(Turn, 8, against, 2.0));
    }
    for against in [SQLX_KEPT, TOKIO_POSTGRES] {
        goals.push(rate(CreateChunks, 1, against, 0.95));
    }
    for against in [SEAORM, DIESEL] {
        goals.push(rate(CreateChunks, 1, against, 1.5));
    }
    goals.push(rate(CreateChunks, 1, SQLALCHEMY, 8.0));
    goals.push(rate(LoadChunks, 1, ROW_BY_ROW, 9.0));
    goals.push(rate(LoadChunks, 1, SEAORM, 1.6));
    goals.push(rate(LoadChunks, 1, SQLALCHEMY, 12.0));
    goals.push(rate(ReadChunks, 8, SQLX, 1.0));
    goals
}

impl Report {
    pub async fn new(options: &Options, url: &str) -> Outcome<Self> {
        let mut connection = PgConnection::connect(url).await?;
        let version: String = sqlx::query_scalar("select split_part(version(), ' (', 1)")
            .fetch_one(&mut connection)
            .await?;
        let settings: Vec<String> = sqlx::query_scalar(
            "select name || ' = ' || current_setting(name) from pg_settings
              where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers')
              order by name",
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(Self {
            figures: Vec::new(),
            idle: None,
            command: options.command.clone(),
            connections: options.connections,
            rounds: options.rounds,
            seconds: options.time.as_secs_f64(),
            machine: machine(),
            server: format!("{version}; {}", settings.join(", ")),
        })
    }

    pub fn find(&self, contender: &str, workload: Workload, clients: usize) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            figure.contender == contender
                && figure.workload == workload
                && figure.clients == clients
        })
    }

    /// The workloads that were measured, with their numbers of clients.
    pub fn cases(&self) -> Vec<(Workload, usize)> {
        let mut cases: Vec<_> = self.figures.iter().map(|f| (f.workload, f.clients)).collect();
        cases.dedup();
        cases
    }

    /// How the goals stand, line by line: what, the ratio, the goal, whether it is reached.
    fn standing(&self) -> Vec<(String, f64, String, bool)> {
        let mut lines = Vec::new();
        for goal in goals() {
            let find = |contender| self.find(contender, goal.workload, goal.clients);
            let (Some(own), Some(other)) = (find(goal.contender), find(goal.against)) else {
                continue;
            };
            let pairs = match goal.what {
                What::Rate => own.rates.iter().zip(&other.rates),
                What::Tail => own.p99s.iter().zip(&other.p99s),
            };
            let ratio = median(pairs.map(|(own, other)| own / other));
            let (measure, sign, reached) = match goal.what {
                What::Rate => ("rate", '≥', ratio >= goal.at_least),
                What::Tail => ("p99", '≤', ratio <= goal.at_least),
            };
            let what = format!(
                "{}, {} client{}: {measure} of {} ÷ {}",
                goal.workload.name(),
                goal.clients,
                if goal.clients == 1 { "" } else { "s" },
                goal.contender,
                goal.against
            );
            lines.push((what, ratio, format!("{sign} {}", goal.at_least), reached));
        }
        let page = |workload| self.find(CHANCERY, workload, 8);
        if let (Some(first), Some(deep)) = (page(Workload::FirstPage), page(Workload::DeepPage)) {
            let ratio = first.rate / deep.rate;
            let what = "time of a page at depth 100,000 ÷ page 1".to_owned();
            lines.push((what, ratio, "≤ 1.1".into(), ratio <= 1.1));
        }
        let raw =
            (page(Workload::ReadChunksRaw), self.find(contenders::SQLX, Workload::ReadChunks, 8));
        if let (Some(raw), Some(sqlx)) = raw {
            let ratio = median(raw.rates.iter().zip(&sqlx.rates).map(|(own, other)| own / other));
            let what = "read-chunks-raw of chancery ÷ read-chunks of sqlx".to_owned();
            lines.push((what, ratio, "≥ 1.15".into(), ratio >= 1.15));
        }
        let calls =
            |contender| self.find(contender, Workload::GetById, 8)?.allocations.map(|a| a.calls);
        if let (Some(own), Some(kept)) = (calls(CHANCERY), calls(contenders::SQLX_KEPT)) {
            let more = own as f64 - kept as f64;
            let what = "allocations of a get-by-id more than on a kept connection".to_owned();
            lines.push((what, more, "≤ 2".into(), more <= 2.0));
        }
        lines
    }

    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (what, ratio, goal, reached) in self.standing() {
            let mark = if reached { "reached" } else { "MISSED" };
            let _ = writeln!(text, "{ratio:7.2}  {goal:7} {mark:8} {what}");
        }
        if let Some(idle) = &self.idle {
            let _ = writeln!(text, "{idle}");
        }
        text
    }

    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Results\n\n\
             Written by the benchmark; the plot is `results.svg`. The command:\n\n\
             ```sh\ncargo run --release --manifest-path bench/Cargo.toml -- {}\n```\n\n\
             * Machine: {}. Server and clients share it, so a client that needs less CPU time also\n  \
             leaves more to the server: ratios carry over to another machine, rates do not.\n\
             * Server: {}. On the loopback interface.\n\
             * Everybody has a pool of {} connections and the same rows. Contenders take turns: {} rounds\n  \
             of {} s each, medians of the rounds. The contenders in Rust run in one process, one at a time.\n\
             * CPU: of the client's process, for each operation. Allocations: counted in a run of their\n  \
             own, with one client; bytes are all that was asked for, the peak is what was held at a time.\n\n",
            self.command, self.machine, self.server, self.connections, self.rounds, self.seconds
        );
        text.push_str("| name | what it is |\n|---|---|\n");
        for (name, what) in LEGEND {
            if self.figures.iter().any(|figure| figure.contender == name) {
                let _ = writeln!(text, "| {name} | {what} |");
            }
        }
        text.push_str("\n## Goals\n\nRatios are medians of the rounds' ratios.\n\n| | measured | goal | |\n|---|---:|---:|---|\n");
        for (what, ratio, goal, reached) in self.standing() {
            let mark = if reached { "reached" } else { "**missed**" };
            let _ = writeln!(text, "| {what} | {ratio:.2} | {goal} | {mark} |");
        }
        if let Some(idle) = &self.idle {
            let _ = writeln!(text, "\nA pool that nobody uses: {idle}.");
        }
        for (workload, clients) in self.cases() {
            let plural = if clients == 1 { "" } else { "s" };
            let _ = write!(
                text,
                "\n## {}, {clients} client{plural}\n\n\
                 | | a second | × chancery | p50 µs | p99 µs | CPU µs | allocations | bytes | peak KiB |\n\
                 |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
                workload.title()
            );
            let own = self.find(CHANCERY, workload, clients).map_or(f64::NAN, |f| f.rate);
            for figure in &self.figures {
                if (figure.workload, figure.clients) != (workload, clients) {
                    continue;
                }
                let (calls, bytes, peak) = figure.allocations.map_or_else(Default::default, |a| {
                    let kib = a.peak as f64 / 1024.0;
                    (a.calls.to_string(), a.bytes.to_string(), format!("{kib:.0}"))
                });
                let number = |n: f64| if n.is_finite() { format!("{n:.0}") } else { String::new() };
                let rate = if figure.rate < 100.0 {
                    format!("{:.1}", figure.rate)
                } else {
                    number(figure.rate)
                };
                let _ = writeln!(
                    text,
                    "| {} | {rate} | {:.2} | {} | {} | {} | {calls} | {bytes} | {peak} |",
                    figure.contender,
                    figure.rate / own,
                    number(figure.p50),
                    number(figure.p99),
                    number(figure.cpu),
                );
            }
        }
        text
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    let rustc = std::process::Command::new("rustc").arg("--version").output();
    let rustc = rustc.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    format!(
        "{cores} cores of {model}, {}, {}",
        std::env::consts::OS,
        rustc.as_deref().map_or("an unknown compiler", str::trim)
    )
}
