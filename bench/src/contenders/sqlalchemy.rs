//! SQLAlchemy, in a Python process of its own that is told what to run, line by line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Mutex;

use crate::contender::{Driven, Outcome};
use crate::drive::{Load, Sample, What};
use crate::workload::Workload;

pub struct SqlAlchemy {
    talk: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    // Ends with its input.
    _child: Child,
}

/// A virtual environment with what it needs, made at the first call.
fn python() -> Outcome<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let program = folder.join("bin/python");
    let ready = folder.join("ready");
    if !ready.is_file() {
        let run = |command: &mut Command| match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{command:?}: {status}")),
            Err(error) => Err(format!("{command:?}: {error}")),
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&program).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "sqlalchemy[asyncio]>=2,<3",
            "asyncpg",
            "uvloop",
        ]))?;
        std::fs::write(ready, "")?;
    }
    Ok(program)
}

pub fn start(url: &str, connections: u32) -> Outcome<SqlAlchemy> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/contender.py");
    let mut child = tokio::process::Command::new(python()?)
        .arg(script)
        .arg(url)
        .arg(connections.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipes to Python".into());
    };
    Ok(SqlAlchemy { talk: Mutex::new((input, BufReader::new(output).lines())), _child: child })
}

impl Driven for SqlAlchemy {
    fn drive(
        self: Arc<Self>,
        workload: Workload,
        load: Load,
    ) -> BoxFuture<'static, Outcome<Sample>> {
        Box::pin(async move {
            if load.what == What::Memory {
                let nan = f64::NAN;
                return Ok(Sample { rate: nan, p50: nan, p99: nan, cpu: nan, allocations: None });
            }
            let order = json!({
                "workload": workload.name(),
                "clients": load.clients,
                "seconds": load.time.as_secs_f64(),
                "data": load.data.as_json(),
            });
            let mut talk = self.talk.lock().await;
            talk.0.write_all(format!("{order}\n").as_bytes()).await?;
            talk.0.flush().await?;
            let answer = talk.1.next_line().await?.ok_or("Python ended; its error is above")?;
            let answer: Value = serde_json::from_str(&answer)?;
            let number = |name: &str| answer[name].as_f64().unwrap_or(f64::NAN);
            Ok(Sample {
                rate: number("rate"),
                p50: number("p50"),
                p99: number("p99"),
                cpu: number("cpu"),
                allocations: None,
            })
        })
    }
}
