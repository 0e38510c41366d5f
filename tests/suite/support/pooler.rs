//! A PgBouncer between the tests and their server.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use url::Url;

/// Which one.
#[derive(Clone, Copy)]
pub enum Release {
    /// 1.18: it does not keep track of prepared statements.
    Old,
    /// 1.24: it does.
    New,
}

impl Release {
    /// The program, fetched if need be; none where it can't be had, and that is said.
    pub fn program(self) -> Option<&'static Path> {
        static OLD: OnceLock<Option<PathBuf>> = OnceLock::new();
        static NEW: OnceLock<Option<PathBuf>> = OnceLock::new();
        let (kept, name) = match self {
            Self::Old => (&OLD, "bookworm"),
            Self::New => (&NEW, "trixie"),
        };
        let program = kept.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/pgbouncer");
            let output = Command::new(script).arg(name).output().ok()?;
            let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
            if !output.status.success() {
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                return None;
            }
            Some(path.into())
        });
        if program.is_none() {
            eprintln!("SKIPPED: no PgBouncer of Debian {name} can be had here (scripts/pgbouncer)");
        }
        program.as_deref()
    }
}

/// The URL for all tests: with CHANCERY_TEST_POOLER set, that of a pooler before the server, which
/// stays until the process ends.
pub fn between(server: &str) -> String {
    if std::env::var_os("CHANCERY_TEST_POOLER").is_none() {
        return server.to_owned();
    }
    let server = server.parse().unwrap();
    // The driver's own connections, which make the databases, ask for what it would refuse; and a
    // database can only be dropped when nobody is connected.
    let settings = "max_prepared_statements = 200\nignore_startup_parameters = extra_float_digits\n\
                    server_idle_timeout = 1\ndefault_pool_size = 20";
    let pooler = PgBouncer::start(Release::New, &server, settings)
        .expect("CHANCERY_TEST_POOLER is set, and there is no pooler");
    let url = pooler.url(&server);
    std::mem::forget(pooler);
    url.into()
}

/// It ends when this is dropped, or with the process.
pub struct PgBouncer {
    port: u16,
    watchdog: Child,
    folder: PathBuf,
}

impl PgBouncer {
    /// In transaction mode, with four servers for each database. None where there is no program.
    pub fn start(release: Release, server: &Url, settings: &str) -> Option<Self> {
        Some(Self::run(release.program()?, server, settings))
    }

    fn run(program: &Path, server: &Url, settings: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = std::env::temp_dir().join(format!(
            "chancery-pgbouncer-{}-{}",
            std::process::id(),
            free.port()
        ));
        // Its own user has to read it.
        fs::DirBuilder::new().mode(0o755).create(&folder).unwrap();
        let ini = folder.join("pgbouncer.ini");
        let password = match server.password() {
            Some(password) => format!(" password={password}"),
            None => String::new(),
        };
        let text = format!(
            "[databases]\n* = host={} port={} user={}{password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 4\nmax_client_conn = 500\n{settings}\n",
            server.host_str().unwrap(),
            server.port().unwrap_or(5432),
            server.username(),
            free.port(),
        );
        fs::File::create(&ini).unwrap().write_all(text.as_bytes()).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        // It refuses to run as root. The pipe tells the shell when this process has ended.
        let script = r#"
            if [ "$(id -u)" = 0 ]; then set -- "$@" -u nobody; fi
            "$@" </dev/null & pid=$!
            read -r line
            kill -9 $pid"#;
        let watchdog = Command::new("/bin/sh")
            .args(["-c", script, "pgbouncer-watchdog"])
            .args([program, ini.as_path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(free).is_err() {
            let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "PgBouncer does not start: {}", log());
            thread::sleep(Duration::from_millis(5));
        }
        Self { port: free.port(), watchdog, folder }
    }

    /// `url`, by way of this pooler.
    pub fn url(&self, url: &Url) -> Url {
        let mut url = url.clone();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        self.watchdog.wait().unwrap();
        _ = fs::remove_dir_all(&self.folder);
    }
}
