//! Starting a server, and doing to it what happens to servers.

use std::{
    fmt::{self, Write as _},
    fs::{self, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    StartError,
    binaries::Search,
    folder::{self, Folder},
    identity::{Identity, run, text},
    libraries,
    watchdog::Watchdog,
};

/// For speed (the data need not outlive a crash of the machine) and the same everywhere.
const SETTINGS: [(&str, &str); 12] = [
    ("listen_addresses", "127.0.0.1"),
    // A path in the temp folder can be too long for a socket.
    ("unix_socket_directories", ""),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "128MB"),
    ("max_connections", "200"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // In the data folder, so that nothing is left in /dev/shm when the server is killed.
    ("dynamic_shared_memory_type", "mmap"),
    ("logging_collector", "off"),
];

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until all clients have gone.
    Smart,
    /// Ends all connections, rolls back their transactions and writes a checkpoint.
    Fast,
    /// As a crash: the next start recovers.
    Immediate,
}

/// What a server shall be like, before it starts; see [`Server::builder`].
#[derive(Clone, Default)]
pub struct Builder {
    settings: Vec<(String, String)>,
    files: Vec<(String, String)>,
    port: Option<u16>,
    password: Option<String>,
    primary: Option<u16>,
}

impl Builder {
    /// A line of `postgresql.conf`, over the defaults of this crate. The port is not set this way.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// A file in the data folder that only the server can read: a certificate or its key for `ssl`, or
    /// `pg_hba.conf` in place of the usual one.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, content: impl Into<String>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    /// The port to listen on, instead of a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Asks for this password (scram-sha-256) instead of trusting every local connection.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// A standby of a running server, which it copies and then follows. That one must not ask for a
    /// password; both have its settings, and these on top.
    #[must_use]
    pub fn standby_of(mut self, primary: &Server) -> Self {
        self.primary = Some(primary.port);
        self
    }

    /// Starts the server and returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// When there are no programs to start, or the server does not start: then with its last words.
    pub fn start(self) -> Result<Server, StartError> {
        let settings = settings_file(&self.settings)?;
        let identity = Identity::current()?;
        let found = Search::from_env(identity)?.find(identity)?;

        let usable = run(program(identity, &found, "postgres").arg("--version")).is_ok();
        let parents = folder::parents();
        let folder = if usable {
            Folder::create(&parents, identity)?
        } else {
            // Not in /dev/shm: programs may be forbidden there.
            let may_run = parents.iter().filter(|path| !path.starts_with("/dev"));
            Folder::create(&may_run.cloned().collect::<Vec<_>>(), identity)?
        };
        let data = folder.data();
        let bin = if usable { found.clone() } else { folder.path.join("install/bin") };
        let pg_ctl = bin.join("pg_ctl");
        let watchdog =
            Watchdog::start(identity, &pg_ctl, &data, &folder.path).map_err(|error| {
                _ = fs::remove_dir_all(&folder.path);
                StartError::new(format!("/bin/sh: {error}"))
            })?;
        let mut server = Server {
            port: 0,
            password: self.password,
            frozen: AtomicBool::new(false),
            identity,
            bin,
            data,
            watchdog,
            folder,
        };
        if !usable {
            server.copy_programs(&found).map_err(|problem| {
                let found = found.display();
                StartError::new(format!("{found} cannot be used by the server: {problem}"))
            })?;
        }
        folder::sweep(&parents, identity, &pg_ctl);
        match self.primary {
            None => server.init()?,
            Some(port) => server.copy(port)?,
        }
        server.configure(&settings)?;
        for (name, content) in &self.files {
            let path = server.data.join(name);
            _ = fs::remove_file(&path);
            server
                .write_private(&path, content)
                .map_err(|error| StartError::new(format!("{name}: {error}")))?;
        }
        server.start_on_a_port(self.port)?;
        Ok(server)
    }
}

/// A private PostgreSQL server. It listens on 127.0.0.1 only; the superuser is `postgres`.
/// Dropping it stops it and removes its data.
pub struct Server {
    port: u16,
    password: Option<String>,
    frozen: AtomicBool,
    identity: Identity,
    bin: PathBuf,
    data: PathBuf,
    // Dropped in this order: the folder stays locked until it is gone.
    watchdog: Watchdog,
    folder: Folder,
}

impl Server {
    /// Starts a server with the default settings, whether or not `DATABASE_URL` is set.
    ///
    /// # Errors
    ///
    /// As [`Builder::start`].
    pub fn start() -> Result<Self, StartError> {
        Self::builder().start()
    }

    /// A server with settings of one's own.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The URL of a database of this server, whether it exists or not.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let password = self.password.as_deref().map(percent_encoded);
        let password = password.map_or(String::new(), |password| format!(":{password}"));
        format!(
            "postgres://postgres{password}@127.0.0.1:{}/{}",
            self.port,
            percent_encoded(database)
        )
    }

    /// The TCP port, the same for as long as this value lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The id of the server's main process; none while it is stopped or after it was killed.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        let file = fs::read_to_string(self.pid_file()).ok()?;
        let pid: u32 = file.lines().next()?.trim().parse().ok()?;
        // One that was killed leaves its file, and in a container also its id, for no one reaps it:
        // it has no command line any more.
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).or_else(|_| {
            run(Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]))
                .map(|output| output.stdout)
        });
        let data = self.data.to_string_lossy();
        text(&arguments.ok()?).contains(&*data).then_some(pid)
    }

    fn pid_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }

    /// Stops the server, which keeps its data and port for [`restart`](Self::restart). A frozen
    /// server is thawed first.
    ///
    /// # Errors
    ///
    /// When it does not run, or still runs after a minute.
    pub fn stop(&self, mode: StopMode) -> io::Result<()> {
        self.thaw_if_frozen()?;
        let mode = match mode {
            StopMode::Smart => "smart",
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        };
        run(self.pg_ctl("stop").args(["-m", mode])).map(drop).map_err(io::Error::other)
    }

    /// Makes a standby a primary, and returns when it takes writes.
    ///
    /// # Errors
    ///
    /// When it does not run, or is no standby.
    pub fn promote(&self) -> io::Result<()> {
        run(self.pg_ctl("promote").arg("-w")).map(drop).map_err(io::Error::other)
    }

    /// Starts a server that was stopped as a standby of another one, which was its own standby and has
    /// been promoted since: so the two exchange their roles.
    ///
    /// # Errors
    ///
    /// When it runs, or does not start.
    pub fn follow(&self, primary: &Server) -> io::Result<()> {
        if self.postmaster_pid().is_some() {
            return Err(io::Error::other("a server that runs follows no other one"));
        }
        // Here the last line holds, and it comes after `postgresql.conf`.
        let mut settings =
            OpenOptions::new().append(true).open(self.data.join("postgresql.auto.conf"))?;
        let port = primary.port;
        writeln!(settings, "primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'")?;
        self.write_private(&self.data.join("standby.signal"), "")?;
        self.restart()
    }

    /// Whether standbys can be made: not every package has `pg_basebackup`.
    #[must_use]
    pub fn can_be_copied(&self) -> bool {
        self.bin.join("pg_basebackup").is_file()
    }

    /// Starts the server with the same port and data, after stopping it (fast) if it runs. After it
    /// was killed, it recovers.
    ///
    /// # Errors
    ///
    /// When it does not stop or start.
    pub fn restart(&self) -> io::Result<()> {
        if self.postmaster_pid().is_some() {
            self.stop(StopMode::Fast)?;
        } else {
            _ = fs::remove_file(self.pid_file());
        }
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.start_on(self.port) {
                // The connections of a server that was killed outlive it for a moment.
                Err(problem) if problem.contains(" in use") && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(50));
                }
                result => return result.map_err(io::Error::other),
            }
        }
    }

    /// Stops all of the server's processes where they are, as a hanging machine would: connections
    /// stay open and get no answer.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn freeze(&self) -> io::Result<()> {
        let postmaster = self.running()?;
        self.frozen.store(true, Ordering::SeqCst);
        // First the one that starts others, so that none is missed.
        self.signal("STOP", &[postmaster])?;
        self.signal("STOP", &children(postmaster)?)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn thaw(&self) -> io::Result<()> {
        let postmaster = self.running()?;
        self.signal("CONT", &children(postmaster)?)?;
        self.signal("CONT", &[postmaster])?;
        self.frozen.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn thaw_if_frozen(&self) -> io::Result<()> {
        match self.frozen.load(Ordering::SeqCst) {
            true => self.thaw(),
            false => Ok(()),
        }
    }

    fn running(&self) -> io::Result<u32> {
        self.postmaster_pid()
            .ok_or_else(|| io::Error::other("the private PostgreSQL server does not run"))
    }

    fn signal(&self, signal: &str, pids: &[u32]) -> io::Result<()> {
        // The shell's own `kill`: a small system has no program of that name. A process may have
        // ended meanwhile, so that some fail.
        let script = r#"signal=$0; for pid in "$@"; do kill -s "$signal" "$pid"; done; :"#;
        let mut command = self.identity.command("/bin/sh");
        command.args(["-c", script, signal]);
        run(command.args(pids.iter().map(u32::to_string))).map(drop).map_err(io::Error::other)
    }

    fn run_to_its_end(&self, command: &mut Command) -> Result<(), String> {
        let command = self.watchdog.wait_for(command);
        run(command.map_err(|error| error.to_string())?).map(drop)
    }

    fn program(&self, name: &str) -> Command {
        program(self.identity, &self.bin, name)
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = self.program("pg_ctl");
        command.args([action, "--silent", "-t", "60", "-D"]);
        command.arg(&self.data);
        command
    }

    /// Programs in a folder that only root can read, copied to where the server's user can.
    fn copy_programs(&self, bin: &Path) -> Result<(), String> {
        let target = self.folder.path.join("install");
        fs::create_dir(&target).map_err(|error| error.to_string())?;
        let root = bin.parent().unwrap_or(bin);
        let parts = ["bin", "lib", "lib64", "share"].map(|name| root.join(name));
        run(Command::new("cp")
            .arg("-R")
            .args(parts.iter().filter(|part| part.exists()))
            .arg(&target))?;
        let owner = format!("{}:{}", self.identity.uid, self.identity.gid);
        run(Command::new("chown").args(["-R", &owner]).arg(&target))?;
        run(self.program("postgres").arg("--version")).map(drop)
    }

    /// A new file that only the server's user can read.
    fn write_private(&self, path: &Path, content: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content.as_bytes())?;
        if self.identity.dropped {
            let Identity { uid, gid, .. } = self.identity;
            chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Makes the cluster.
    fn init(&self) -> Result<(), StartError> {
        let password_file = self.folder.path.join("password");
        let initdb = |locale: &str| {
            let mut command = self.program("initdb");
            command.args(["-U", "postgres", "-E", "UTF8", "--no-sync", "--no-instructions"]);
            command.arg(format!("--locale={locale}"));
            match self.password {
                Some(_) => command.args(["-A", "scram-sha-256", "--pwfile"]).arg(&password_file),
                None => command.args(["-A", "trust"]),
            };
            self.run_to_its_end(command.arg("-D").arg(&self.data))
        };
        if let Some(password) = &self.password {
            self.write_private(&password_file, &format!("{password}\n")).map_err(failed)?;
        }
        // Older systems lack the locale C.UTF-8; `initdb` removes what it made when it fails.
        let result = initdb("C.UTF-8").or_else(|problem| match problem.contains("locale") {
            true => initdb("C"),
            false => Err(problem),
        });
        if self.password.is_some() {
            fs::remove_file(&password_file).map_err(failed)?;
        }
        result.map_err(|problem| StartError::new(format!("making the cluster: {problem}")))
    }

    /// Makes the cluster as a copy of another server's, which it will follow.
    fn copy(&self, port: u16) -> Result<(), StartError> {
        let mut command = self.program("pg_basebackup");
        command.args(["--host=127.0.0.1", "--username=postgres", "--no-sync", "--no-manifest"]);
        command.args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf"]);
        command.arg(format!("--port={port}")).arg("--pgdata").arg(&self.data);
        self.run_to_its_end(&mut command)
            .map_err(|problem| StartError::new(format!("copying the cluster: {problem}")))
    }

    fn configure(&self, settings: &str) -> Result<(), StartError> {
        OpenOptions::new()
            .append(true)
            .open(self.data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .map_err(failed)
    }

    fn start_on_a_port(&mut self, port: Option<u16>) -> Result<(), StartError> {
        for _ in 0..10 {
            self.port = port.map_or_else(free_port, Ok)?;
            match self.start_on(self.port) {
                // Another process was faster.
                Err(problem) if port.is_none() && problem.contains("in use") => {}
                result => return result.map_err(StartError::new),
            }
        }
        Err(StartError::new("ten ports in a row were free and then taken"))
    }

    fn start_on(&self, port: u16) -> Result<(), String> {
        let log = self.folder.path.join("server.log");
        // The last words of an earlier start would be taken for this one's.
        _ = fs::remove_file(&log);
        let mut command = self.pg_ctl("start");
        command.args(["-w", "-o", &format!("-p {port}"), "-l"]);
        self.run_to_its_end(command.arg(&log)).map_err(|problem| {
            let log = fs::read(&log).unwrap_or_default();
            let log = text(&log);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            let hint = match last.contains("parameter \"TimeZone\"") {
                true => "\nThis machine has no time zones: install its package `tzdata`.",
                false => "",
            };
            format!("the private PostgreSQL server did not start: {problem}\n{last}{hint}")
        })
    }
}

/// A program of the server, run as its user and with the libraries that lie beside it.
fn program(identity: Identity, bin: &Path, name: &str) -> Command {
    let mut command = identity.command(bin.join(name));
    libraries::beside(bin, &mut command);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // The rest is done by the watchdog, which would wait for frozen connections.
        _ = self.thaw_if_frozen();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("port", &self.port)
            .field("data_dir", &self.data)
            .finish_non_exhaustive()
    }
}

fn failed(error: io::Error) -> StartError {
    StartError::new(format!("making the cluster: {error}"))
}

fn settings_file(settings: &[(String, String)]) -> Result<String, StartError> {
    let own = settings.iter().map(|(name, value)| (&**name, &**value));
    let mut file = String::from("\n");
    for (name, value) in SETTINGS.into_iter().chain(own) {
        let word = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        if name.is_empty() || !name.chars().all(word) || value.contains(['\n', '\r', '\0']) {
            return Err(StartError::new(format!("not a setting: {name}={value}")));
        }
        let value = value.replace('\\', r"\\").replace('\'', "''");
        _ = writeln!(file, "{name} = '{value}'");
    }
    Ok(file)
}

/// A free port below those that systems give to outgoing connections: a client that tries again and
/// again while the server is down could otherwise be given the server's port and meet itself.
fn free_port() -> Result<u16, StartError> {
    let random = RandomState::new();
    (0..100_u32)
        .map(|attempt| 20_000 + (random.hash_one(attempt) % 12_000) as u16)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| StartError::new("no free port on 127.0.0.1"))
}

/// The server's processes are all children of its main one.
fn children(of: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    if Path::new("/proc/self/stat").exists() {
        for entry in fs::read_dir("/proc")?.flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // "pid (name) state parent …", and the name may hold anything.
            let parent = stat.rsplit_once(')').map(|(_, rest)| rest.split(' ').nth(2));
            if parent.flatten().and_then(|pid| pid.parse().ok()) == Some(of) {
                children.extend(entry.file_name().to_str().and_then(|pid| pid.parse::<u32>().ok()));
            }
        }
    } else {
        let output = run(Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid="]))
            .map_err(io::Error::other)?;
        for line in text(&output.stdout).lines() {
            let mut words = line.split_whitespace().map(str::parse);
            if let (Some(Ok(pid)), Some(Ok(parent))) = (words.next(), words.next())
                && parent == of
            {
                children.push(pid);
            }
        }
    }
    Ok(children)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_and_checked() {
        let one = |name: &str, value: &str| settings_file(&[(name.into(), value.into())]);
        let file = one("work_mem", r"it's \").unwrap();
        assert!(file.ends_with("\nwork_mem = 'it''s \\\\'\n"), "{file}");
        assert!(one("work mem", "1").is_err());
        assert!(one("work_mem", "1'\nport = '1").is_err());
    }

    #[test]
    fn urls_are_encoded() {
        assert_eq!(percent_encoded("a-b_c/d@é"), "a-b_c%2Fd%40%C3%A9");
    }
}
