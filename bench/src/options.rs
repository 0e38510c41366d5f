//! What is measured, and for how long.

use std::time::Duration;

use crate::workload::Workload;

pub struct Options {
    pub workloads: Vec<Workload>,
    /// Only these contenders; empty: all.
    pub contenders: Vec<String>,
    /// Instead of each workload's own.
    pub clients: Option<usize>,
    pub rounds: usize,
    /// Of one contender's turn.
    pub time: Duration,
    /// Of everybody's pool.
    pub connections: u32,
    pub python: bool,
    /// How long a pool is watched that nobody uses; none: not at all.
    pub idle: Option<Duration>,
    /// Whether RESULTS.md and the plot are written.
    pub write: bool,
    /// As given.
    pub command: String,
}

const USAGE: &str = "usage: cargo run --release --manifest-path bench/Cargo.toml -- [OPTIONS]

  --quick                 a look: shorter turns, fewer rounds, nothing is written
  --python                SQLAlchemy with asyncpg as well (installed with pip under bench/target)
  --only NAME,NAME        these workloads
  --contenders NAME,NAME  these contenders
  --clients N             instead of each workload's own numbers
  --rounds N              turns of each contender (default 7)
  --seconds S             of each turn (default 1)
  --connections N         of each pool (default 20)
  --write, --no-write     RESULTS.md and results.svg (default: written when everything is measured)

Without DATABASE_URL a private server is started. Workloads: ";

impl Options {
    pub fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let arguments: Vec<_> = arguments.collect();
        let mut options = Self {
            workloads: Workload::ALL.to_vec(),
            contenders: Vec::new(),
            clients: None,
            rounds: 7,
            time: Duration::from_secs(1),
            connections: 20,
            python: false,
            idle: Some(Duration::from_secs(60)),
            write: true,
            command: arguments.join(" "),
        };
        let mut write = None;
        let mut arguments = arguments.into_iter();
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} wants a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
            match option.as_str() {
                "--quick" => {
                    options.rounds = 3;
                    options.time = Duration::from_millis(150);
                    options.idle = Some(Duration::from_secs(5));
                    options.write = false;
                }
                "--python" => options.python = true,
                "--only" => {
                    options.workloads = value()?
                        .split(',')
                        .map(|name| {
                            let known = Workload::ALL.into_iter().find(|w| w.name() == name);
                            known.ok_or_else(|| format!("there is no workload {name}"))
                        })
                        .collect::<Result<_, _>>()?;
                    options.idle = None;
                    options.write = false;
                }
                "--contenders" => {
                    options.contenders = value()?.split(',').map(str::to_owned).collect();
                    options.idle = None;
                    options.write = false;
                }
                "--clients" => options.clients = Some(number(value()?)?),
                "--rounds" => options.rounds = number(value()?)?.max(1),
                "--connections" => {
                    options.connections =
                        u32::try_from(number(value()?)?.max(1)).unwrap_or(u32::MAX);
                }
                "--seconds" => {
                    let text = value()?;
                    let seconds = text.parse().map_err(|_| format!("{text} is no number"))?;
                    options.time =
                        Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
                }
                "--write" => write = Some(true),
                "--no-write" => write = Some(false),
                _ => {
                    let names: Vec<_> = Workload::ALL.iter().map(|w| w.name()).collect();
                    return Err(format!("{USAGE}{}", names.join(", ")));
                }
            }
        }
        options.write = write.unwrap_or(options.write);
        Ok(options)
    }

    pub fn takes(&self, contender: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|name| name == contender)
    }
}
