//! Compares chancery with other ways of talking to PostgreSQL, on one server and one set of rows.
//!
//! Contenders take turns, round by round, so that what disturbs the machine disturbs all of them;
//! what is told is the median of the rounds.

mod allocator;
mod contender;
mod contenders;
mod data;
mod drive;
mod idle;
mod measure;
mod options;
mod plot;
mod report;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;

use contender::{Driven, Outcome};
use data::Data;
use drive::{Load, Sample, What};
use options::Options;
use private_postgres::Server;
use report::{Figure, Report};
use sqlx::{Connection, PgConnection};
use workload::Workload;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// A contender, and what it takes part in.
pub struct Entry {
    pub name: &'static str,
    driven: Arc<dyn Driven>,
    takes_part: fn(Workload) -> bool,
}

impl Entry {
    pub fn new(
        name: &'static str,
        driven: impl Driven + 'static,
        takes_part: fn(Workload) -> bool,
    ) -> Self {
        Self { name, driven: Arc::new(driven), takes_part }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::from_arguments(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Outcome<()> {
    let server = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => Err(url),
        // Each contender has a pool of its own.
        _ => Ok(Server::builder().setting("max_connections", "400").start()?),
    };
    let base = match &server {
        Ok(server) => server.url("postgres"),
        Err(url) => url.clone(),
    };
    let name = format!("chancery_bench_{}", std::process::id());
    let mut admin = PgConnection::connect(&base).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await?;
    // The same for everybody: a commit does not wait for the disk.
    let setting = format!("alter database {name} set synchronous_commit = off");
    sqlx::query(sqlx::AssertSqlSafe(setting)).execute(&mut admin).await?;
    let url = match base.rsplit_once('/') {
        Some((server, rest)) => {
            let query = rest.find('?').map_or("", |at| &rest[at..]);
            format!("{server}/{name}{query}")
        }
        None => return Err("the server's URL names no database".into()),
    };
    let outcome = measured(options, &url).await;
    let dropped = format!("drop database {name} with (force)");
    sqlx::query(sqlx::AssertSqlSafe(dropped)).execute(&mut admin).await?;
    let report = outcome?;
    print!("{}", report.summary());
    if options.write {
        let folder = env!("CARGO_MANIFEST_DIR");
        std::fs::write(format!("{folder}/RESULTS.md"), report.markdown())?;
        std::fs::write(format!("{folder}/results.svg"), plot::svg(&report))?;
        println!("written: {folder}/RESULTS.md and results.svg");
    }
    Ok(())
}

async fn measured(options: &Options, url: &str) -> Outcome<Report> {
    let data = Arc::new(data::seed(url).await?);
    let entries = contenders::all(options, url).await?;
    let mut report = Report::new(options, url).await?;
    for &workload in &options.workloads {
        let clients = match options.clients {
            Some(clients) => vec![clients],
            None => workload.clients().to_vec(),
        };
        for clients in clients {
            let taking_part: Vec<_> =
                entries.iter().filter(|entry| (entry.takes_part)(workload)).collect();
            let mut samples = vec![Vec::new(); taking_part.len()];
            for round in 0..options.rounds {
                // Who begins changes, so that nobody always follows the same one.
                for turn in 0..taking_part.len() {
                    let who = (turn + round) % taking_part.len();
                    let load = Load {
                        clients,
                        time: options.time,
                        data: Arc::clone(&data),
                        what: What::Speed,
                    };
                    samples[who].push(sample(taking_part[who], workload, load, url, &data).await?);
                }
            }
            for (entry, samples) in taking_part.iter().zip(samples) {
                let load = Load {
                    clients: 1,
                    time: options.time,
                    data: Arc::clone(&data),
                    what: What::Memory,
                };
                let memory = sample(entry, workload, load, url, &data).await?;
                let figure =
                    Figure::new(entry.name, workload, clients, &samples, memory.allocations);
                eprintln!("{figure}");
                report.figures.push(figure);
            }
        }
    }
    if let Some(time) = options.idle {
        let idle = idle::watch(url, time).await?;
        eprintln!("{idle}");
        report.idle = Some(idle);
    }
    Ok(report)
}

async fn sample(
    entry: &Entry,
    workload: Workload,
    load: Load,
    url: &str,
    data: &Data,
) -> Outcome<Sample> {
    let outcome = Arc::clone(&entry.driven).drive(workload, load).await;
    let sample =
        outcome.map_err(|error| format!("{}, {}: {error}", entry.name, workload.name()))?;
    if workload.stores_chunks() {
        data.clear(url).await?;
    }
    Ok(sample)
}
