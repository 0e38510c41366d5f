//! `pgbench -M prepared`: what the server gives a client that does nothing with the rows.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::process::Command;

use crate::contender::{Driven, Outcome};
use crate::drive::{Load, Sample, What};
use crate::measure::childrens_cpu;
use crate::workload::Workload;

pub struct Pgbench {
    pub program: PathBuf,
    pub url: String,
    pub connections: usize,
}

/// From `PATH`, or beside Debian's servers.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    folders.into_iter().map(|folder| folder.join("pgbench")).find(|program| program.is_file())
}

impl Driven for Pgbench {
    fn drive(self: Arc<Self>, _: Workload, load: Load) -> BoxFuture<'static, Outcome<Sample>> {
        Box::pin(async move {
            let nothing = Sample {
                rate: 0.0,
                p50: f64::NAN,
                p99: f64::NAN,
                cpu: f64::NAN,
                allocations: None,
            };
            if load.what == What::Memory {
                return Ok(nothing);
            }
            let folder = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
            std::fs::create_dir_all(&folder)?;
            let script = folder.join("get-by-id.sql");
            std::fs::write(
                &script,
                "select id, email, password_hash, name, profile_picture, profession, date_of_birth, \
                 timezone, is_active, last_login, created_at, updated_at from users where id = :id;\n",
            )?;
            let cpu = childrens_cpu();
            let seconds = load.time.as_secs().max(1).to_string();
            // It has no pool: each of its clients has a connection of its own.
            let clients = load.clients.min(self.connections);
            let (clients, threads) = (clients.to_string(), clients.min(2).to_string());
            let output = Command::new(&self.program)
                .args(["-n", "-M", "prepared", "-c", &clients, "-j", &threads, "-T", &seconds])
                .arg("-D")
                .arg(format!("id={}", load.data.users[0]))
                .arg("-f")
                .arg(&script)
                .arg(&self.url)
                .current_dir(&folder)
                .output()
                .await?;
            let cpu = childrens_cpu() - cpu;
            std::fs::remove_dir_all(&folder)?;
            let text = String::from_utf8_lossy(&output.stdout);
            let number = |label: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(label))?;
                line.split([' ', '/']).next()?.parse::<f64>().ok()
            };
            let (Some(rate), Some(operations)) =
                (number("tps = "), number("number of transactions actually processed: "))
            else {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
            };
            // It reads the clock once for many of its clients: its latencies are not like the others'.
            Ok(Sample { rate, cpu: cpu / operations, ..nothing })
        })
    }
}
